from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit import archive
from mollikit.engine.streams import Rng
from mollikit.layout import Layout
from mollikit.oracles import GradientOracle
from mollikit.surrogates.risk import StatedRisk


@dataclass(frozen=True, eq=False)
class SurrogateMap:
    """A map that stands for the smoothed gradient and is not an unbiased estimate of it.

    Attributes
    ----------
    gradient : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    n_evaluations : float
        Its cost in gradients; a forward pass counts a third.
    biased : str
        What makes it biased.
    provenance : dict
        All that is needed to repeat it, fit for JSON.
    """

    gradient: Any
    n_evaluations: float
    biased: str
    provenance: Mapping[str, Any]


@runtime_checkable
class Surrogate(Protocol):
    """Whatever makes a `SurrogateMap` for a model at an input."""

    @property
    def cost(self) -> float:
        """What a map will cost, in gradients; a forward pass counts a third."""
        ...

    def surrogate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        rng: Rng = None,
    ) -> SurrogateMap:
        """Make the map; its randomness comes from ``rng`` alone."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class BiasedView(StatedRisk):
    """A view of a biased estimate with a risk of its own.

    Attributes
    ----------
    value : ndarray
    """

    value: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class BiasedEstimate(StatedRisk):
    """A smoothed gradient that trades a bias for less noise, with an estimate of its risk.

    It has no standard error and no interval: those are for unbiased estimates, whose error is their spread.
    Its squared error |gradient - truth|^2 over the whole map, the bias included, is estimated from
    independent unbiased gradients, with an interval. That says how far the map is off as a whole, not where.

    Attributes
    ----------
    gradient : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    risk, risk_standard_error, risk_degrees_of_freedom, signal : float
        As of `StatedRisk`; `risk_interval` and `relative_interval` put the first two together.
    n_evaluations : float
        Cost in gradients, the gradients for the risk included; a forward pass counts a third.
    n_gradients, n_folds : int
        Unbiased gradients among them, and the folds that they make.
    biased : str
        What makes it biased.
    seconds : float
    partial : bool
        Whether Ctrl-C ended it: it then holds the folds that were whole.
    views : dict of BiasedView
    provenance : dict
        All that is needed to repeat it, fit for JSON.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Bumpy:
    ...     def value_and_gradient(self, x): return None, 1 + np.sin(9 * x)
    >>> shrunk = mk.Shrunk(mk.Pathwise(mk.Gaussian(1.0), sampler=mk.Independent()))
    >>> estimate = shrunk.estimate(Bumpy(), np.zeros((20, 20)), budget=mk.Evaluations(64), rng=0)
    >>> low, high = estimate.risk_interval(0.95)
    >>> bool(low < np.square(estimate.gradient - 1).sum() < high)
    True
    """

    layout: Layout
    mean: NDArray[np.float64]
    n_evaluations: float
    n_gradients: int
    n_folds: int
    biased: str
    seconds: float
    partial: bool
    provenance: Mapping[str, Any]
    views: Mapping[str, BiasedView] = field(default_factory=dict)

    @property
    def gradient(self) -> Any:
        return self.layout.unflatten(self.mean)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, whole or not at all."""
        about = {name: getattr(self, name) for name in (*_RISK, *_TOLD)}
        about["leaves"] = archive.of_layout(self.layout)
        about["views"] = {
            name: {part: getattr(view, part) for part in _RISK} for name, view in self.views.items()
        }
        views = {f"view.{name}.mean": view.value for name, view in self.views.items()}
        archive.write(path, type(self).__name__, about, {"gradient.mean": self.mean, **views})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BiasedEstimate:
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
    def _of(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]) -> BiasedEstimate:
        return cls(
            layout=archive.layout_of(about["leaves"]),
            mean=arrays["gradient.mean"],
            views={
                name: BiasedView(value=arrays[f"view.{name}.mean"], **risk)
                for name, risk in about["views"].items()
            },
            **{name: about[name] for name in (*_RISK, *_TOLD)},
        )

    def __repr__(self) -> str:
        errors = [f"error {self.told}", *(f"{name} {view.told}" for name, view in self.views.items())]
        return (
            f"BiasedEstimate({', '.join(errors)} by estimated risk, the cost of {self.n_evaluations:.4g} "
            f"gradients, {self.seconds:.2g} s{', partial' if self.partial else ''}; biased: {self.biased})"
        )

    def _repr_html_(self) -> str:
        from mollikit.notebook import biased_html

        return biased_html(self)

    def _repr_png_(self) -> bytes | None:
        from mollikit.notebook import biased_png

        return biased_png(self)


_RISK = tuple(part.name for part in fields(StatedRisk))
_TOLD = ("n_evaluations", "n_gradients", "n_folds", "biased", "seconds", "partial", "provenance")
