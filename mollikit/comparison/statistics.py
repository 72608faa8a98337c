"""Jackknife over pairs of rounds: of a mean, of a ratio of means, and of a slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit


def jackknife(statistic: Callable[[NDArray[np.float64]], float], samples: ArrayLike) -> tuple[float, float]:
    """Return a statistic of samples (n, ...) and its standard error.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", equation 11.5.

    Examples
    --------
    >>> from mollikit.comparison.statistics import jackknife
    >>> value, error = jackknife(lambda x: float(x.mean()), [1.0, 2.0, 3.0])
    >>> round(value, 6), round(error, 6)                 # of a mean it is the standard error of the mean
    (2.0, 0.57735)
    """
    values = np.asarray(samples, np.float64)
    n = len(values)
    without = np.array([statistic(np.delete(values, k, axis=0)) for k in range(n)])
    return float(statistic(values)), float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))


def interval(logarithm: float, error: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a ratio from its logarithm, by Student's t for the n pairs there are."""
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    with np.errstate(over="ignore"):
        return float(np.exp(logarithm - half)), float(np.exp(logarithm + half))


def slope(evaluations: Sequence[int], squared_errors: ArrayLike) -> tuple[float, float]:
    """Exponent of the error and its standard error, from squared errors (pairs, numbers)."""
    x = np.log(np.asarray(evaluations, np.float64))
    x -= x.mean()

    def fitted(rows: NDArray[np.float64]) -> float:
        return float(x @ np.log(rows.mean(axis=0)) / 2 / (x @ x))

    return jackknife(fitted, squared_errors)
