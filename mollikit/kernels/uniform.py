from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Uniform(Kernel):
    """The uniform density 1/2 on [-1, 1] (rect): smoothing by the mean over a box of half-width s.

    Its density jumps, so its Fisher information is infinite and it has no score-function estimator.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks": the rect kernel.

    Examples
    --------
    >>> import mollikit as mk
    >>> float(mk.Uniform(0.1).inverse_cdf(0.75))
    0.5
    """

    variance = 1 / 3
    support = (-1.0, 1.0)
    fisher_information = np.inf
    smoothness = -1

    def density(self, t: Any) -> Floats:
        return np.where(np.abs(t) <= 1, 0.5, 0.0)

    def cdf(self, t: Any) -> Floats:
        return np.asarray(np.clip((1 + np.asarray(t)) / 2, 0, 1))

    def inverse_cdf(self, u: Any) -> Floats:
        return 2 * np.asarray(u) - 1

    def score(self, t: Any) -> Floats:
        return np.zeros_like(t, dtype=np.float64)

    def characteristic_function(self, omega: Any) -> Floats:
        return np.sinc(np.asarray(omega) / np.pi)
