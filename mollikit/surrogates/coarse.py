from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from mollikit.budgets import Evaluations
from mollikit.engine.streams import Rng
from mollikit.estimators.pathwise import Pathwise
from mollikit.oracles import GradientOracle
from mollikit.surrogates.record import SurrogateMap


@dataclass(frozen=True)
class Coarse:
    """The smoothed gradient of a cheaper model, as a surrogate: fewer bits, fewer layers, a distilled net.

    Parameters
    ----------
    oracle : GradientOracle
        The cheaper model; it takes the inputs of the model that it stands for.
    pathwise : Pathwise
    budget : Evaluations
        Gradients of the cheaper model.
    price : float
        Of one of them, in gradients of the model that it stands for.

    Raises
    ------
    ValueError
        If the price is not positive.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Line:
    ...     def value_and_gradient(self, x): return None, np.ones_like(x)
    >>> coarse = mk.Coarse(Line(), mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(16), price=0.25)
    >>> coarse.cost
    4.0
    """

    oracle: GradientOracle
    pathwise: Pathwise
    budget: Evaluations
    price: float

    def __post_init__(self) -> None:
        if not self.price > 0:
            raise ValueError(f"Coarse: price={self.price!r}; a gradient of the cheaper model costs something")

    @property
    def cost(self) -> float:
        return self.budget.n * self.price

    def surrogate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        rng: Rng = None,
    ) -> SurrogateMap:
        """Estimate on the cheaper model; the model itself is not asked."""
        estimate = self.pathwise.estimate(self.oracle, inputs, held=held, budget=self.budget, rng=rng)
        return SurrogateMap(
            estimate.gradient,
            estimate.n_evaluations * self.price,
            "another model's smoothed gradient",
            estimate.provenance,
        )
