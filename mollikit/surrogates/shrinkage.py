from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A mean of independent unbiased maps drawn towards a surrogate (or zero), band by band.

    Attributes
    ----------
    estimate : ndarray (D,)
    risk : ndarray (bands,)
        Estimate of E|estimate - truth|^2 in each band.
    weights : ndarray (bands,)
        Of the unbiased maps, from 0 (the surrogate alone) to 1.
    signal : float
        Unbiased estimate of |truth|^2.
    """

    estimate: Array
    risk: Array
    weights: Array
    signal: float

    @property
    def total_risk(self) -> float:
        return float(self.risk.sum())

    def with_estimate(self, estimate: Array) -> Drawn:
        """Return the same with the estimate in other coordinates."""
        return replace(self, estimate=estimate)


def relative_error(risk: float, signal: float) -> float:
    """Sqrt(risk / signal); infinite where the signal is not resolved, 0 where the risk is lost in noise."""
    return float(np.sqrt(max(risk, 0.0) / signal)) if signal > 0 else float("inf")


def cross_power(folds: Array, against: Array | float = 0.0) -> float:
    """Unbiased estimate of |truth - against|^2 from independent unbiased maps (K, D).

    It is the mean of <G_j - a, G_k - a> over j != k: what the maps have in common, without their noise.
    """
    count = len(folds)
    mean = folds.mean(axis=0)
    noise = np.square(folds - mean).sum() / (count * (count - 1))
    return float(np.square(mean - against).sum() - noise)


def drawn_towards(folds: Array, surrogate: Array | None, labels: NDArray[np.intp]) -> Drawn:
    r"""Draw the mean of independent unbiased maps towards a surrogate, and estimate the risk of the result.

    In each band let r be the mean of the maps less the surrogate, C its covariance, estimated from the spread
    of the maps, V = tr C its noise and p = (tr C)^2 / tr C^2 the number of directions that the noise fills.

        estimate = surrogate + w r,   w = max(0, 1 - c V / |r|^2),   c = max(0, 1 - 2 / p)
        risk     = (1 - w)^2 |r|^2 - V + 2 w V + 4 c V r' C r / |r|^4      (the last where w > 0)

    With many directions c is 1, and w is Wiener's weight from the cross power |r|^2 - V. With equal noise in
    every coordinate c = (p - 2) / p is that of James and Stein; noise in one or two directions allows no
    gain, and c is 0. The risk is Stein's unbiased estimate for normal r, whatever the truth: the weights come
    from the same maps, and what this flatters is what its last term takes back.

    Source: James and Stein 1961, "Estimation with quadratic loss"; Stein 1981, "Estimation of the mean of a
    multivariate normal distribution", theorem 1; for C not a multiple of the identity Bock 1975, "Minimax
    estimators of the mean of a multivariate normal distribution".

    Parameters
    ----------
    folds : ndarray (K, D)
        Independent, unbiased and of equal noise; at least 3.
    surrogate : ndarray (D,) or None
        Independent of the folds. None draws towards zero.
    labels : ndarray (D,)
        Band of each coefficient.
    """
    count, bands = len(folds), int(labels.max()) + 1

    def sums(values: Array) -> Array:
        return np.asarray(np.bincount(labels, weights=values, minlength=bands), np.float64)

    mean = folds.mean(axis=0)
    guess = np.zeros_like(mean) if surrogate is None else surrogate
    apart = mean - guess
    power, along = sums(np.square(apart)), np.zeros(bands)
    deviations = folds - mean
    gram = np.empty((count, count, bands))
    for j, one in enumerate(deviations):
        along += np.square(sums(one * apart))
        for k in range(j + 1):
            gram[j, k] = gram[k, j] = sums(one * deviations[k])
    noise, along = np.trace(gram) / (count * (count - 1)), along / (count * (count - 1))
    divisor = np.where(power > 0, power, 1.0)
    factor = np.maximum(0, 1 - 2 * _concentration(gram))
    weights = np.where(power > 0, np.maximum(0, 1 - factor * noise / divisor), 1.0)
    risk = (1 - weights) ** 2 * power - noise + 2 * weights * noise
    risk += np.where(weights > 0, 4 * factor * noise * along / divisor**2, 0)
    return Drawn(guess + weights[labels] * apart, risk, weights, cross_power(folds))


def _concentration(gram: Array) -> Array:
    """Tr C^2 / (tr C)^2 of the covariance of maps, from the products (K, K, bands) of their deviations.

    Both are made unbiased for normal maps: for S with n degrees of freedom E tr S^2 = (1 + 1 / n) tr C^2 +
    (tr C)^2 / n and E (tr S)^2 = (tr C)^2 + 2 tr C^2 / n.
    """
    n = len(gram) - 1
    squared_trace = np.square(np.trace(gram) / n)
    of_square = np.square(gram).sum(axis=(0, 1)) / n**2
    square = np.maximum(of_square - squared_trace / n, 0) * n**2 / ((n - 1) * (n + 2))
    whole = squared_trace - 2 * square / n
    return np.asarray(np.clip(np.divide(square, whole, out=np.zeros_like(whole), where=whole > 0), 0, 1))
