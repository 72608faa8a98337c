from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

# Windows of one pass over the nodes.
_AT_ONCE = 2048


def chances_of_largest(mean: Array, covariance: Array, nodes: Array, rng: np.random.Generator) -> Array:
    """Chance that each of a few jointly normal numbers is positive and the largest of them.

    P(u_j > max(0, others)) is E[Phi((E[u_j | others] - max(0, others)) / sd[u_j | others])]: the last
    dimension is integrated exactly, which leaves an integrand without jumps for the nodes.

    Source: Genz 1992, "Numerical computation of multivariate normal probabilities", for the order of
    integration.

    Parameters
    ----------
    mean : ndarray (W, k)
    covariance : ndarray (W, k, k)
        May be singular.
    nodes : ndarray (n, k - 1)
        Standard normal; the more even, the better. A single number needs none.
    rng : numpy.random.Generator
        By which every window has the nodes' axes in an order and with signs of its own: the errors of
        different windows then cancel in what is summed over them.

    Returns
    -------
    ndarray (W, k)
    """
    chances = np.empty_like(mean)
    size = mean.shape[1]
    # Half the time of float64, and beside the error of the nodes its rounding is nothing.
    dtype: Any = np.float32 if size > 1 else np.float64
    even = nodes.T.astype(dtype)
    # Rounding makes covariances of near copies indefinite; a part in 1e10 is added to each variance.
    ridge = 1e-10 * np.trace(covariance, axis1=1, axis2=2) + 1e-30
    covariance = covariance + ridge[:, None, None] * np.eye(size)
    for j in range(size):
        order = [*(i for i in range(size) if i != j), j]
        root = np.linalg.cholesky(covariance[:, order][:, :, order])
        turned = rng.permuted(np.tile(np.arange(size - 1), (len(mean), 1)), axis=1)
        spans = np.take_along_axis(root[:, :, :-1], turned[:, None], axis=2)
        spans *= rng.choice([-1.0, 1.0], (len(mean), 1, size - 1))
        for start in range(0, len(mean), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            # (W, k, n): the others, and last the conditional mean of the one.
            u = spans[part].astype(dtype) @ even
            u += mean[part, order, None].astype(dtype)
            rest = np.maximum(u[:, :-1].max(axis=1), 0) if size > 1 else dtype(0)
            u = (u[:, -1] - rest) / root[part, -1, -1, None].astype(dtype)
            chances[part, j] = ndtr(u).mean(axis=1)
    return chances
