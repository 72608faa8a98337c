from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, kv, stdtr, stdtrit, xlogy

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats


@dataclass(frozen=True, eq=False, repr=False)
class StudentT(Kernel):
    """Student's t density with nu degrees of freedom: the Cauchy at nu = 1, the Gaussian as nu grows.

    Its tails fall as a power, so the smoothed gradient needs a gradient that grows slower than |t|^nu.

    Source: Student 1908, "The probable error of a mean"; the characteristic function is that of Hurst
    1995, "The characteristic function of the Student t distribution".

    Parameters
    ----------
    scale : float, array or Scale
    nu : float
        Degrees of freedom, positive.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.StudentT(0.1, nu=5).variance
    1.6666666666666667
    """

    nu: float = 4.0

    smoothness = np.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.nu) and self.nu > 0):
            raise ValueError(f"StudentT: nu={self.nu!r} must be a positive number of degrees of freedom")

    def __repr__(self) -> str:
        return f"StudentT({self.scale!r}, nu={self.nu:g})"

    @property
    def variance(self) -> float:
        return self.nu / (self.nu - 2) if self.nu > 2 else np.inf

    @property
    def fisher_information(self) -> float:
        return (self.nu + 1) / (self.nu + 3)

    @property
    def moment_limit(self) -> float:
        return self.nu

    def density(self, t: Any) -> Floats:
        nu = self.nu
        constant = np.exp(gammaln((nu + 1) / 2) - gammaln(nu / 2)) / np.sqrt(nu * np.pi)
        return np.asarray(constant * (1 + np.square(t) / nu) ** (-(nu + 1) / 2))

    def cdf(self, t: Any) -> Floats:
        return np.asarray(stdtr(self.nu, t))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = np.asarray(stdtrit(self.nu, np.minimum(u, 1 - u)))
        return np.where(u < 0.5, tail, -tail).astype(tail.dtype, copy=False)

    def score(self, t: Any) -> Floats:
        return np.asarray(-(self.nu + 1) * np.asarray(t) / (self.nu + np.square(t)))

    def characteristic_function(self, omega: Any) -> Floats:
        half, x = self.nu / 2, np.sqrt(self.nu) * np.abs(np.asarray(omega, dtype=np.float64))
        safe = np.where(x > 0, x, 1.0)
        bessel = kv(half, safe) * np.exp(xlogy(half, safe) - gammaln(half) - (half - 1) * np.log(2))
        return np.asarray(np.where(x > 0, bessel, 1.0))
