from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.engine.streams import Rng
from mollikit.oracles import GradientOracle
from mollikit.surrogates.shrinkage import relative_error


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


@dataclass(frozen=True, eq=False)
class BiasedView:
    """A view of a biased estimate with the risk of its own.

    Attributes
    ----------
    value : ndarray
    risk : float
        Estimate of E|value - truth|^2.
    relative_error : float
        sqrt(risk) over the L2 norm of the truth, as estimated; infinite where that is not resolved.
    """

    value: NDArray[np.float64]
    risk: float
    relative_error: float


@dataclass(frozen=True, eq=False)
class BiasedEstimate:
    """A smoothed gradient that trades a bias for less noise, with an estimate of its risk.

    It has no standard error and no interval: those are for unbiased estimates, whose error is their spread.
    Its risk, E|gradient - truth|^2 over the whole map, is estimated from independent unbiased gradients, the
    bias included. It says how far the map is off as a whole, not where.

    Attributes
    ----------
    gradient : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    risk : float
        Estimate of E|gradient - truth|^2, summed over the coordinates; itself random, it can come out below
        zero where few gradients look at a small error.
    signal : float
        Unbiased estimate of |truth|^2.
    n_evaluations : float
        Cost in gradients, the gradients for the risk included; a forward pass counts a third.
    n_gradients : int
        Unbiased gradients among them.
    biased : str
        What makes it biased.
    seconds : float
    views : dict of BiasedView
    provenance : dict
        All that is needed to repeat it, fit for JSON.
    """

    gradient: Any
    risk: float
    signal: float
    n_evaluations: float
    n_gradients: int
    biased: str
    seconds: float
    provenance: Mapping[str, Any]
    views: Mapping[str, BiasedView] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """Sqrt(risk / |truth|^2), as estimated; infinite where the signal is not resolved."""
        return relative_error(self.risk, self.signal)

    def __repr__(self) -> str:
        errors = [f"error {_percent(self.relative_error)}"]
        errors += [f"{name} {_percent(view.relative_error)}" for name, view in self.views.items()]
        return (
            f"BiasedEstimate({', '.join(errors)} by estimated risk, the cost of {self.n_evaluations:.4g} "
            f"gradients, {self.seconds:.2g} s; biased: {self.biased})"
        )


def _percent(error: float) -> str:
    return f"{100 * error:.3g}%" if np.isfinite(error) else "unresolved"
