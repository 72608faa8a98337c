from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class HyperbolicSecant(Kernel):
    """The hyperbolic secant density sech(t) / pi: exponential tails, and its own transform up to scale.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks": the hyperbolic
    kernel; scipy.stats.hypsecant for the standard form.

    Examples
    --------
    >>> import mollikit as mk
    >>> abs(float(mk.HyperbolicSecant(0.1).inverse_cdf(0.5))) < 1e-15
    True
    """

    variance = np.pi**2 / 4
    fisher_information = 0.5
    smoothness = np.inf
    moment_limit = np.inf

    def density(self, t: Any) -> Floats:
        return np.asarray(_sech(t) / np.pi)

    def cdf(self, t: Any) -> Floats:
        tail = 2 / np.pi * np.arctan(np.exp(-np.abs(t)))
        return np.asarray(np.where(np.asarray(t) < 0, tail, 1 - tail))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = np.log(np.tan(np.pi / 2 * np.minimum(u, 1 - u)))
        return np.asarray(np.where(u < 0.5, tail, -tail))

    def score(self, t: Any) -> Floats:
        return np.asarray(-np.tanh(t))

    def characteristic_function(self, omega: Any) -> Floats:
        return _sech(np.pi / 2 * np.asarray(omega))


def _sech(x: Any) -> Floats:
    # 2 e / (1 + e^2) with e = exp(-|x|) does not overflow.
    e = np.exp(-np.abs(x))
    return np.asarray(2 * e / (1 + e * e))
