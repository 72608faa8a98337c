from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from mollikit.engine.streams import Rng
from mollikit.layout import Layout
from mollikit.surrogates.bands import Bands, CosineBands
from mollikit.surrogates.base import Array, FromFolds
from mollikit.surrogates.record import Surrogate, SurrogateMap
from mollikit.surrogates.shrinkage import Drawn
from mollikit.surrogates.shrunk import in_bands


@dataclass(frozen=True)
class Combined(FromFolds):
    """Pathwise drawn towards a surrogate, band by band, by the measured spread and bias. Biased.

    Where the surrogate (`mollikit_onnx.MeanGates`, a coarser net) differs from the unbiased maps by more than
    their noise it yields to them (`drawn_towards`). As the gradients grow in number the estimate goes over to
    theirs: it is consistent whatever the surrogate.

    Source: Green and Strawderman 1991, "A James-Stein type estimator for combining unbiased and possibly
    biased estimators".

    Parameters
    ----------
    pathwise : Pathwise
        How the unbiased maps are estimated; each fold needs 2 groups of its sampler.
    surrogate : Surrogate
    bands : Bands
        What shares a weight.
    folds : int
        Independent maps; at least 3.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Bumpy:
    ...     def value_and_gradient(self, x): return None, 1 + 9 * np.sin(9 * x)
    >>> class Smooth:
    ...     def value_and_gradient(self, x): return None, np.full_like(x, 0.9)
    >>> kernel = mk.Gaussian(1.0)
    >>> guess = mk.Coarse(Smooth(), mk.Pathwise(kernel), mk.Evaluations(16), price=0.1)
    >>> combined = mk.Combined(mk.Pathwise(kernel, sampler=mk.Independent()), guess)
    >>> estimate = combined.estimate(Bumpy(), np.zeros(400), budget=mk.Evaluations(64), rng=0)
    >>> bool(np.abs(estimate.gradient - 1).mean() < 0.1)
    True
    """

    surrogate: Surrogate
    bands: Bands = field(default_factory=CosineBands)

    def _surrogate_cost(self) -> float:
        return self.surrogate.cost

    def _surrogate(
        self, oracle: Any, inputs: Any, held: Mapping[str, ArrayLike] | None, rng: Rng
    ) -> SurrogateMap | None:
        return self.surrogate.surrogate(oracle, inputs, held=held, rng=rng)

    def _fit(self, folds: Array, surrogate: Array | None, layout: Layout | None) -> Drawn:
        return in_bands(folds, surrogate, layout, self.bands)

    @property
    def _biased(self) -> str:
        return "drawn towards a surrogate:"
