from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """An average of independent maps drawn towards a surrogate (or zero), band by band.

    Attributes
    ----------
    estimate : ndarray (D,)
    risk : ndarray (bands,)
        Estimate of E|estimate - truth|^2 in each band.
    weights : ndarray (bands,)
        Of the unbiased maps, from 0 (the surrogate alone) to 1.
    gains : ndarray (bands,)
        By which the surrogate was multiplied.
    signal : float
        Unbiased estimate of |truth|^2.
    surrogate_risk : float
        Unbiased estimate of |surrogate - truth|^2, of the surrogate as it came.
    """

    estimate: Array
    risk: Array
    weights: Array
    gains: Array
    signal: float
    surrogate_risk: float

    @property
    def total_risk(self) -> float:
        return float(self.risk.sum())

    def with_estimate(self, estimate: Array) -> CrossFit:
        """Return the fit with the estimate in other coordinates."""
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


def cross_fitted(folds: Array, surrogate: Array | None, labels: NDArray[np.intp]) -> CrossFit:
    """Draw independent unbiased maps towards a surrogate with weights that they do not see.

    With T the truth, G_k the K maps and S the surrogate, in each band the residual power R = |T - a S|^2 and
    the noise V = E|mean G - T|^2 give Wiener's weight w = R / (R + V); the gain a is that of the regression
    of T on S. For the k-th map both come from the other maps, so that none is weighted by its own noise:

        estimate = mean over k of  a_k S + w_k (G_k - a_k S)
        risk     = mean over k of  (1 - w_k)^2 R_k + w_k^2 V

    with R_k = |G_k - a_k S|^2 - K V from the k-th map alone: independent of the weights, so without the
    optimism of a minimum that is reported as the risk.

    Source: Wiener 1949 for the weight; James and Stein 1961, "Estimation with quadratic loss", for risk
    below that of the mean; the split into folds is cross-fitting.

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
    if count < 3:
        raise ValueError(f"cross_fitted: {count} folds; the weights of one need at least 2 others")

    def power(values: Array) -> Array:
        return np.asarray(np.bincount(labels, weights=np.square(values), minlength=bands), np.float64)

    total = folds.sum(axis=0)
    # Of one fold, per band.
    noise = sum((power(fold - total / count) for fold in folds), np.zeros(bands)) / (count - 1)
    prior = np.zeros(folds.shape[1]) if surrogate is None else surrogate
    strength = power(prior)
    estimate, risk = np.zeros_like(total), np.zeros(bands)
    weights, gains = np.zeros(bands), np.zeros(bands)
    for k, fold in enumerate(folds):
        others = (total - fold) / (count - 1)
        spread = sum((power(f - others) for j, f in enumerate(folds) if j != k), np.zeros(bands)) / (
            count - 2
        )
        projected = np.bincount(labels, weights=others * prior, minlength=bands)
        gain = np.divide(projected, strength, out=np.zeros(bands), where=strength > 0)
        guess = gain[labels] * prior
        residual = np.maximum(power(others - guess) - spread / (count - 1), 0)
        both = residual + spread / count
        # Maps without any noise are exact, and need no surrogate.
        weight = np.divide(residual, both, out=np.ones(bands), where=both > 0)
        estimate += (guess + weight[labels] * (fold - guess)) / count
        seen = power(fold - guess) - noise
        risk += ((1 - weight) ** 2 * seen + weight**2 * noise / count) / count
        weights += weight / count
        gains += gain / count
    return CrossFit(estimate, risk, weights, gains, cross_power(folds), cross_power(folds, prior))
