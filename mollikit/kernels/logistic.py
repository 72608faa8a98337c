from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, logit

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Logistic(Kernel):
    """The logistic density, the derivative of the sigmoid: sech(t / 2)^2 / 4.

    Smoothing a step by it gives the sigmoid of that step.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks": the sigmoid kernel.

    Examples
    --------
    >>> import mollikit as mk
    >>> float(mk.Logistic(0.1).inverse_cdf(0.5))
    0.0
    """

    variance = np.pi**2 / 3
    fisher_information = 1 / 3
    smoothness = np.inf
    moment_limit = np.inf

    def density(self, t: Any) -> Floats:
        return np.asarray(expit(t) * expit(np.negative(t)))

    def cdf(self, t: Any) -> Floats:
        return np.asarray(expit(t))

    def inverse_cdf(self, u: Any) -> Floats:
        return np.asarray(logit(u))

    def score(self, t: Any) -> Floats:
        return -np.tanh(np.asarray(t) / 2)

    def characteristic_function(self, omega: Any) -> Floats:
        # x / sinh(x) as 2 x exp(-x) / (1 - exp(-2 x)), which neither overflows nor divides 0 by 0.
        x = np.pi * np.abs(omega)
        safe = np.where(x > 0, x, 1.0)
        return np.where(x > 0, 2 * safe * np.exp(-safe) / -np.expm1(-2 * safe), 1.0)
