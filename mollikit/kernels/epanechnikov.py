from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


class Epanechnikov(Kernel):
    """The parabola 3/4 (1 - t^2) on [-1, 1].

    Its Fisher information is infinite, so it has no score-function estimator.

    Source: Epanechnikov 1969, "Non-parametric estimation of a multivariate probability density".

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Epanechnikov(0.1).variance
    0.2
    """

    variance = 0.2
    support = (-1.0, 1.0)
    fisher_information = np.inf
    smoothness = 0

    def density(self, t: Any) -> Floats:
        return np.asarray(np.maximum(0.75 * (1 - np.square(t)), 0.0))

    def cdf(self, t: Any) -> Floats:
        inside = np.clip(t, -1.0, 1.0)
        return np.asarray(np.square(1 + inside) * (2 - inside) / 4)

    def inverse_cdf(self, u: Any) -> Floats:
        # The root in [-1, 1] of t^3 - 3 t + 4 u - 2 = 0, by the sine of a third of an angle,
        # arcsin(2 u - 1) = 2 arcsin(sqrt(u)) - pi / 2, which does not lose small u.
        return np.asarray(2 * np.sin((2 * np.arcsin(np.sqrt(u)) - np.pi / 2) / 3))

    def score(self, t: Any) -> Floats:
        return np.asarray(-2 * np.asarray(t) / (1 - np.square(t)))

    def characteristic_function(self, omega: Any) -> Floats:
        # 3 (sin w - w cos w) / w^3, which cancels for small w: there 1 - w^2 / 10 + w^4 / 280 - w^6 / 15120.
        w = np.asarray(omega, dtype=np.float64)
        small = np.abs(w) < 0.2
        safe = np.where(small, 1.0, w)
        series = 1 - w**2 / 10 + w**4 / 280 - w**6 / 15120
        return np.asarray(np.where(small, series, 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3))
