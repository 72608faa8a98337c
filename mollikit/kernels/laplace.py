from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Laplace(Kernel):
    """The double exponential density exp(-|t|) / 2: a sharper peak and heavier tails than the Gaussian.

    Source: Laplace 1774; scipy.stats.laplace.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Laplace(0.1).variance
    2.0
    """

    variance = 2.0
    fisher_information = 1.0
    smoothness = 0
    moment_limit = np.inf

    def density(self, t: Any) -> Floats:
        return np.asarray(0.5 * np.exp(-np.abs(t)))

    def cdf(self, t: Any) -> Floats:
        tail = 0.5 * np.exp(-np.abs(t))
        return np.asarray(np.where(np.asarray(t) < 0, tail, 1 - tail))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = np.log(2 * np.minimum(u, 1 - u))
        return np.asarray(np.where(u < 0.5, tail, -tail))

    def score(self, t: Any) -> Floats:
        return np.asarray(-np.sign(t))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(1 / (1 + np.square(omega)))
