from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit import archive
from mollikit.budgets import Budget
from mollikit.forecast import Forecast
from mollikit.layout import Layout
from mollikit.measurement import Measurement
from mollikit.moments import Moments, SecondMoments, Tally


@dataclass(frozen=True, eq=False)
class Estimate:
    """A smoothed gradient with its error bars, and how it was come by.

    Attributes
    ----------
    gradient : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    standard_error : the same
        From the spread of independent groups.
    degrees_of_freedom : int
        Independent groups less one.
    views : dict of Measurement
        The views that were asked for, each with an error bar of its own.
    output : Measurement or None
        The smoothed value of the model, where the oracle gives values.
    n_evaluations : int
        Evaluations of the model that entered the estimate.
    stopped : str
        The budget that ended the run, or "interrupted".
    partial : bool
        Whether a clock or Ctrl-C ended it: a repetition may then end elsewhere.
    provenance : dict
        All that is needed to repeat it, fit for JSON.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Cubic:
    ...     def value_and_gradient(self, points): return (points**3).sum(-1), 3 * points**2
    >>> smooth = mk.Pathwise(inputs=mk.Gaussian(0.5))
    >>> estimate = smooth.estimate(Cubic(), np.ones(2), budget=mk.Evaluations(4096), rng=0)
    >>> low, high = estimate.interval(0.99)      # the truth is 3 (1 + 0.5^2)
    >>> bool(((low < 3.75) & (3.75 < high)).all())
    True
    """

    tally: Tally
    layout: Layout
    group_size: int
    seconds: float
    stopped: str
    partial: bool
    provenance: Mapping[str, Any]

    @property
    def gradient(self) -> Any:
        return self._map.value

    @property
    def standard_error(self) -> Any:
        return self._map.standard_error

    @property
    def degrees_of_freedom(self) -> int:
        return self.n_groups - 1

    @property
    def n_groups(self) -> int:
        """Independent groups of points."""
        return self.tally.gradient.n

    @property
    def n_evaluations(self) -> int:
        return self.n_groups * self.group_size

    @property
    def block(self) -> int:
        """Rows in each call of the model; give it as ``Pathwise(block=...)`` to have the same bits again."""
        return int(self.provenance["block"])

    @property
    def relative_error(self) -> float:
        """Of the whole map, sqrt(|se|^2 / (|gradient|^2 - |se|^2)); infinite where nothing is resolved."""
        return self._map.relative_error

    @property
    def mean_square(self) -> Measurement:
        """Mean square of the gradient over the points: SmoothGrad-squared.

        Raises
        ------
        AttributeError
            If it was not asked for, by ``Pathwise(..., second_moments=True)``.
        """
        return self._map.mean_square

    @property
    def variance(self) -> Measurement:
        """Variance of the gradient over the points, without bias: VarGrad; it is asked for likewise."""
        return self._map.variance

    @property
    def views(self) -> dict[str, Measurement]:
        return {name: Measurement(moments) for name, moments in self.tally.views.items()}

    @property
    def output(self) -> Measurement | None:
        return None if self.tally.output is None else Measurement(self.tally.output)

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence interval of each coordinate of the smoothed gradient.

        Parameters
        ----------
        level : float
            Share of the truths that such intervals cover, in (0, 1).

        Returns
        -------
        low, high : of the gradient's form
            mean -/+ t * standard error, with Student's t for the groups there are.
        """
        return self._map.interval(level)

    def forecast(self, budget: Budget) -> Forecast:
        """Foretell how many evaluations a wanted error takes, and how long at the observed rate.

        The error falls as the root of the number of groups, whatever the sampler.

        Parameters
        ----------
        budget : RelativeError or AbsoluteError
            Of the map, or of one of the estimate's views.

        Raises
        ------
        TypeError, ValueError
            If it is another kind of budget; or if there is no such view.

        Examples
        --------
        >>> import numpy as np, mollikit as mk
        >>> class Cubic:
        ...     def value_and_gradient(self, points): return (points**3).sum(-1), 3 * points**2
        >>> smooth = mk.Pathwise(inputs=mk.Gaussian(0.5))
        >>> estimate = smooth.estimate(Cubic(), np.ones(2), budget=mk.Evaluations(256), rng=0)
        >>> forecast = estimate.forecast(mk.RelativeError(estimate.relative_error / 2))
        >>> round(forecast.evaluations), bool(forecast.low < 1024 < forecast.high)
        (1024, True)
        """
        return Forecast.of(self, budget)

    @property
    def _map(self) -> Measurement:
        return Measurement(self.tally.gradient, self.layout)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, whole or not at all."""
        archive.write(path, "Estimate", self._about(), self._arrays())

    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        tallied = {"gradient": self.tally.gradient, **{f"view.{k}": m for k, m in self.tally.views.items()}}
        if self.tally.output is not None:
            tallied["output"] = self.tally.output
        return {f"{name}.{part}": getattr(m, part) for name, m in tallied.items() for part in m.parts()}

    def _about(self) -> dict[str, Any]:
        return {
            "leaves": archive.of_layout(self.layout),
            "n_groups": self.n_groups,
            "group_size": self.group_size,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "partial": self.partial,
            "provenance": self.provenance,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Estimate:
        """Read what `save` wrote. No code is run: the file holds arrays and JSON.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a saved estimate.
        """
        from mollikit.strata import Stratified

        return archive.read(
            path,
            "Estimate",
            lambda about, arrays: (Stratified if "strata" in about else Estimate)._of(about, arrays),
        )

    @classmethod
    def _of(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]) -> Estimate:
        names = [name.removesuffix(".mean") for name in arrays if name.endswith(".mean")]
        kind = SecondMoments if "gradient.square" in arrays else Moments
        moments = {
            name: kind(about["n_groups"], **{part: arrays[f"{name}.{part}"] for part in kind.parts()})
            for name in names
        }
        gradient, output = moments.pop("gradient"), moments.pop("output", None)
        return Estimate(
            Tally(gradient, {name.removeprefix("view."): m for name, m in moments.items()}, output),
            archive.layout_of(about["leaves"]),
            about["group_size"],
            about["seconds"],
            about["stopped"],
            about["partial"],
            about["provenance"],
        )

    def __repr__(self) -> str:
        shape = ", ".join(
            f"{leaf.name}: {leaf.shape}" if leaf.name else str(leaf.shape) for leaf in self.layout.leaves
        )
        errors = [f"error {_percent(self.relative_error)}"]
        errors += [f"{name} {_percent(view.relative_error)}" for name, view in self.views.items()]
        return (
            f"{type(self).__name__}({shape}, {', '.join(errors)}, {self.n_evaluations} evaluations in "
            f"{self.n_groups} groups, {self.seconds:.2g} s, stopped by {self.stopped}"
            f"{' (partial)' if self.partial else ''})"
        )

    def _repr_html_(self) -> str:
        from mollikit.notebook import estimate_html

        return estimate_html(self)

    def _repr_png_(self) -> bytes | None:
        from mollikit.notebook import estimate_png

        return estimate_png(self)


def _percent(error: float) -> str:
    return f"{100 * error:.3g}%" if np.isfinite(error) else "unresolved"
