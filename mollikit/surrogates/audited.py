from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.engine.streams import Rng
from mollikit.layout import Layout
from mollikit.surrogates.base import Array, FromFolds
from mollikit.surrogates.products import Products
from mollikit.surrogates.record import Surrogate, SurrogateMap
from mollikit.surrogates.shrinkage import Drawn, cross_power
from mollikit.surrogates.uncertainty import Uncertainty


@dataclass(frozen=True)
class Audited(FromFolds):
    """A surrogate as it is, its risk estimated from unbiased gradients. Biased as the surrogate is.

    |surrogate - truth|^2 is the cross power of the folds about the surrogate: unbiased, whatever the
    surrogate. Its own noise, about sqrt(2 / p) V for folds whose mean has noise V in p directions, does not
    shrink with the risk: a good surrogate takes more gradients to be audited, and `risk_interval` says so.

    Parameters
    ----------
    pathwise : Pathwise
        How the unbiased maps are estimated; each fold needs 2 groups of its sampler.
    surrogate : Surrogate
    folds : int
        Independent maps; at least 3.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Bumpy:
    ...     def value_and_gradient(self, x): return None, 1 + np.sin(9 * x)
    >>> class Smooth:
    ...     def value_and_gradient(self, x): return None, np.full_like(x, 0.9)
    >>> kernel = mk.Gaussian(1.0)
    >>> guess = mk.Coarse(Smooth(), mk.Pathwise(kernel), mk.Evaluations(16), price=0.1)
    >>> audited = mk.Audited(mk.Pathwise(kernel, sampler=mk.Independent()), guess)
    >>> round(audited.estimate(Bumpy(), np.zeros(400), budget=mk.Evaluations(64), rng=0).risk / 400, 2)
    0.01
    """

    surrogate: Surrogate

    def _surrogate_cost(self) -> float:
        return self.surrogate.cost

    def _surrogate(
        self, oracle: Any, inputs: Any, held: Mapping[str, ArrayLike] | None, rng: Rng
    ) -> SurrogateMap | None:
        return self.surrogate.surrogate(oracle, inputs, held=held, rng=rng)

    def _fit(self, folds: Array, surrogate: Array | None, layout: Layout | None) -> Drawn:
        assert surrogate is not None
        risk, none = np.array([cross_power(folds, surrogate)]), np.zeros(1)
        products = Products.of(folds, surrogate, np.zeros(folds.shape[1], np.intp))
        return Drawn(surrogate, risk, none, cross_power(folds), Uncertainty.of(products, none))

    @property
    def _biased(self) -> str:
        return "a surrogate alone:"
