from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats
from mollikit.pointsets import Normals, PointSet


class Gaussian(Kernel):
    """The standard normal density, exp(-t^2 / 2) / sqrt(2 pi): the kernel of SmoothGrad.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Gaussian(mk.OfRange(0.15))
    Gaussian(OfRange(fraction=0.15))
    """

    variance = 1.0
    fisher_information = 1.0
    smoothness = np.inf
    moment_limit = np.inf
    view = Normals

    def density(self, t: Any) -> Floats:
        return np.asarray(np.exp(-0.5 * np.square(t)) / np.sqrt(2 * np.pi))

    def cdf(self, t: Any) -> Floats:
        return np.asarray(ndtr(t))

    def inverse_cdf(self, u: Any) -> Floats:
        return np.asarray(ndtri(u))

    def score(self, t: Any) -> Floats:
        return np.asarray(np.negative(t))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(np.exp(-0.5 * np.square(omega)))

    def displacements(self, points: PointSet) -> Floats:
        return points.values if isinstance(points, Normals) else self.inverse_cdf(points.values)
