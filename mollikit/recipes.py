"""Named compositions: the methods of the literature, a few lines each."""

from __future__ import annotations

from typing import Any

from mollikit.estimate import Estimate
from mollikit.estimators import Pathwise
from mollikit.kernels import Gaussian
from mollikit.oracles import GradientOracle
from mollikit.scales import OfRange


def smoothgrad(oracle: GradientOracle, inputs: Any, *, noise: float = 0.15, **options: Any) -> Estimate:
    """SmoothGrad: the mean gradient under Gaussian noise of a fraction of the input's range.

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape)
    noise : float
        Standard deviation over max - min; the paper recommends 0.1 to 0.2.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        Over recentred points in groups of 8, for ten seconds unless a budget is given.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> mk.recipes.smoothgrad(Square(), np.array([0.0, 1.0]), budget=mk.Evaluations(64), rng=0).n_evaluations
    64
    """
    return Pathwise(inputs=Gaussian(OfRange(noise))).estimate(oracle, inputs, **options)
