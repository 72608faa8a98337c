from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Triangular(Kernel):
    """The triangular density 1 - |t| on [-1, 1]: the uniform of half the width, applied twice.

    Its Fisher information is infinite (the score grows as 1 / (1 - |t|) at the ends), so it has no
    score-function estimator.

    Source: Fejer's kernel in its dual form; scipy.stats.triang(0.5, -1, 2).

    Examples
    --------
    >>> import mollikit as mk
    >>> float(mk.Triangular(0.1).inverse_cdf(0.125))
    -0.5
    """

    variance = 1 / 6
    support = (-1.0, 1.0)
    fisher_information = np.inf
    smoothness = 0

    def density(self, t: Any) -> Floats:
        return np.asarray(np.maximum(1 - np.abs(t), 0.0))

    def cdf(self, t: Any) -> Floats:
        tail = 0.5 * np.square(np.maximum(1 - np.abs(t), 0.0))
        return np.asarray(np.where(np.asarray(t) < 0, tail, 1 - tail))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = np.sqrt(2 * np.minimum(u, 1 - u)) - 1
        return np.asarray(np.where(u < 0.5, tail, -tail))

    def score(self, t: Any) -> Floats:
        return np.asarray(-np.sign(t) / (1 - np.abs(t)))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(np.square(np.sinc(np.asarray(omega) / (2 * np.pi))))
