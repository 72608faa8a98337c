from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Cauchy(Kernel):
    """The Cauchy density 1 / (pi (1 + t^2)), whose scale is gamma: the Poisson kernel of the half-plane.

    Neither its mean nor its variance exists, so the smoothed gradient needs a bounded gradient.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks": the Poisson kernel.

    Examples
    --------
    >>> import mollikit as mk
    >>> round(float(mk.Cauchy(0.1).inverse_cdf(0.75)), 12)
    1.0
    """

    variance = np.inf
    fisher_information = 0.5
    smoothness = np.inf
    moment_limit = 1.0

    def density(self, t: Any) -> Floats:
        return np.asarray(1 / (np.pi * (1 + np.square(t))))

    def cdf(self, t: Any) -> Floats:
        # atan2(1, -t) / pi keeps the lower tail's relative accuracy, as 1 / 2 + atan(t) / pi would not.
        return np.asarray(np.arctan2(1.0, np.negative(t)) / np.pi)

    def inverse_cdf(self, u: Any) -> Floats:
        # -cot(pi u), from the nearer end, so that the tails keep their relative accuracy.
        u = np.asarray(u)
        tail = 1 / np.tan(np.pi * np.minimum(u, 1 - u))
        return np.asarray(np.where(u == 0.5, 0.0, np.where(u < 0.5, -tail, tail)))

    def score(self, t: Any) -> Floats:
        return np.asarray(-2 * np.asarray(t) / (1 + np.square(t)))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(np.exp(-np.abs(omega)))
