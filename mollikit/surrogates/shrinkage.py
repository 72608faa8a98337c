from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mollikit.surrogates.products import Array, Products
from mollikit.surrogates.uncertainty import Uncertainty


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
    uncertainty : Uncertainty
        Of the risk.
    """

    estimate: Array
    risk: Array
    weights: Array
    signal: float
    uncertainty: Uncertainty

    @property
    def total_risk(self) -> float:
        return float(self.risk.sum())

    def with_estimate(self, estimate: Array) -> Drawn:
        """Return the same with the estimate in other coordinates."""
        return replace(self, estimate=estimate)


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
    guess = np.zeros(folds.shape[1]) if surrogate is None else surrogate
    apart = folds.mean(axis=0) - guess
    products = Products.of(folds, guess, labels)
    count, power, noise = products.count, products.power, products.noise
    along = np.square(products.along).sum(axis=0) / (count * (count - 1))
    divisor = np.where(power > 0, power, 1.0)
    factor = np.maximum(0, 1 - 2 * products.concentration)
    weights = np.where(power > 0, np.maximum(0, 1 - factor * noise / divisor), 1.0)
    risk = (1 - weights) ** 2 * power - noise + 2 * weights * noise
    risk += np.where(weights > 0, 4 * factor * noise * along / divisor**2, 0)
    uncertainty = Uncertainty.of(products, weights)
    return Drawn(guess + weights[labels] * apart, risk, weights, cross_power(folds), uncertainty)
