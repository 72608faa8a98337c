from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mollikit import archive
from mollikit.estimate import Estimate
from mollikit.layout import Layout
from mollikit.strata import Stratified


@dataclass(frozen=True, eq=False)
class TwoLevelEstimate:
    """An unbiased estimate from two strata, with the error bars of their sum.

    Attributes
    ----------
    gradient, standard_error : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    relative_error : float
        As of `Estimate`.
    n_evaluations : float
        Cost, in gradients of the model.
    coarse : Estimate or None
        Of the cheaper model; None where its mean was given.
    difference : Estimate
        Of the model less the cheaper one.
    seconds : float
    partial : bool
        Whether Ctrl-C ended it: it then holds the pilots and what came after them.
    provenance : dict
    """

    layout: Layout
    mean: NDArray[np.float64]
    coarse: Estimate | None
    difference: Estimate
    n_evaluations: float
    seconds: float
    partial: bool
    provenance: Mapping[str, Any]

    @property
    def gradient(self) -> Any:
        return self.layout.unflatten(self.mean)

    @property
    def standard_error(self) -> Any:
        return self.layout.unflatten(np.sqrt(self._variances.sum(axis=0)))

    @property
    def relative_error(self) -> float:
        noise = float(self._variances.sum())
        signal = float(np.square(self.mean).sum()) - noise
        return float(np.sqrt(noise / signal)) if signal > 0 else float("inf")

    @property
    def _levels(self) -> list[Estimate]:
        return [self.difference] if self.coarse is None else [self.coarse, self.difference]

    @property
    def _variances(self) -> NDArray[np.float64]:
        return np.stack([np.square(level.tally.gradient.standard_error) for level in self._levels])

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence interval of each coordinate, by Student's t with the degrees of freedom of the sum.

        Source: Welch 1947, "The generalization of 'Student's' problem when several different population
        variances are involved".
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level!r}: the level of an interval lies between 0 and 1, such as 0.95")
        variances = self._variances
        freedom = np.array([found.degrees_of_freedom for found in self._levels])[:, None]
        parts = (np.square(variances) / freedom).sum(axis=0)
        total = variances.sum(axis=0)
        degrees = np.divide(np.square(total), parts, out=np.full_like(total, freedom.min()), where=parts > 0)
        half = stdtrit(degrees, (1 + level) / 2) * np.sqrt(total)
        return self.layout.unflatten(self.mean - half), self.layout.unflatten(self.mean + half)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, whole or not at all."""
        levels = {
            name: level
            for name, level in (("coarse", self.coarse), ("difference", self.difference))
            if level is not None
        }
        about = {
            "leaves": archive.of_layout(self.layout),
            "levels": {name: level._about() for name, level in levels.items()},
            **{name: getattr(self, name) for name in _TOLD},
        }
        parts = {f"{name}.{key}": v for name, level in levels.items() for key, v in level._arrays().items()}
        archive.write(path, type(self).__name__, about, {"gradient.mean": self.mean, **parts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TwoLevelEstimate:
        """Read what `save` wrote. No code is run: the file holds arrays and JSON.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a saved estimate of this kind.
        """
        return archive.read(path, cls.__name__, cls._of)

    @classmethod
    def _of(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]) -> TwoLevelEstimate:
        levels = {
            name: (Stratified if "strata" in told else Estimate)._of(
                told,
                {key.removeprefix(f"{name}."): v for key, v in arrays.items() if key.startswith(f"{name}.")},
            )
            for name, told in about["levels"].items()
        }
        return cls(
            layout=archive.layout_of(about["leaves"]),
            mean=arrays["gradient.mean"],
            coarse=levels.get("coarse"),
            difference=levels["difference"],
            **{name: about[name] for name in _TOLD},
        )

    def __repr__(self) -> str:
        error = self.relative_error
        told = f"{100 * error:.3g}%" if np.isfinite(error) else "unresolved"
        counts = " + ".join(str(level.n_evaluations) for level in self._levels)
        levels = "one level" if len(self._levels) == 1 else f"{len(self._levels)} levels"
        return (
            f"TwoLevelEstimate(error {told}, the cost of {self.n_evaluations:.4g} gradients: {counts} in "
            f"{levels}, {self.seconds:.2g} s{', partial' if self.partial else ''})"
        )

    def _repr_html_(self) -> str:
        from mollikit.notebook import two_level_html

        return two_level_html(self)

    def _repr_png_(self) -> bytes | None:
        from mollikit.notebook import two_level_png

        return two_level_png(self)


_TOLD = ("n_evaluations", "seconds", "partial", "provenance")
