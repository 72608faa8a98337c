from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import copysign, isinf, nextafter
from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats
from mollikit.kernels.measured import holder_exponent, integral, moment_limit

# Asked of the numerical inverse CDF, in u: far below what any sample can tell.
_U_RESOLUTION = 1e-12
# What quadrature must promise of the characteristic function.
_TRANSFORM_TOLERANCE = 1e-7
# Over all magnitudes, for a formula of any width.
PROBES = np.concatenate([[0.0], np.geomspace(1e-18, 1e9, 1081)])


@dataclass(frozen=True, eq=False, repr=False)
class Density(Kernel):
    """A kernel from a formula; see `from_density`.

    Parameters
    ----------
    scale : float, array or Scale
    formula : callable
        Even density up to a factor: a float in, a float out.
    reach : float
        The support is (-reach, reach); possibly infinite.
    """

    formula: Callable[[float], float]
    reach: float = np.inf

    def __repr__(self) -> str:
        name = getattr(self.formula, "__name__", type(self.formula).__name__)
        return f"from_density({name}, scale={self.scale!r}, reach={self.reach:g})"

    @property
    def support(self) -> tuple[float, float]:
        return (-self.reach, self.reach)

    @cached_property
    def length(self) -> float:
        """Where t K(t), the mass for each factor in t, is largest: integrals are taken in this unit."""
        t = PROBES[self.reach > PROBES]
        return float(t[np.argmax([x * self.formula(float(x)) for x in t])])

    @cached_property
    def mass(self) -> float:
        """The integral of the formula, by which the density is divided."""
        return 2 * self._integral(self.formula)

    @cached_property
    def variance(self) -> float:
        if moment_limit(self.density, self.length, self.reach) <= 2:
            return np.inf
        return 2 * self._integral(lambda t: t * t * self._density_at(t))

    @cached_property
    def fisher_information(self) -> float:
        # Where K ends as (reach - t)^p, score^2 K ~ (reach - t)^(p - 2): infinite for p <= 1.
        if holder_exponent(self.density, self.length, self.reach).smoothness < 0 or self._edge_power <= 1:
            return np.inf
        try:
            return 2 * self._integral(lambda t: self._score_at(t) ** 2 * self._density_at(t))
        except ArithmeticError:
            return np.inf

    @cached_property
    def u_error(self) -> float:
        """Largest |F(Q(u)) - u| at 99 points of the lower half, F by adaptive quadrature of the density."""
        u = np.concatenate([np.geomspace(1e-9, 1e-3, 50), np.linspace(0.01, 0.49, 49)])
        tails = [self._integral(self._density_at, -float(t)) for t in self.inverse_cdf(u)]
        return float(np.abs(np.array(tails) - u).max())

    def formula_values(self, t: Any) -> Floats:
        """Return the formula's values, elementwise, not yet normalised."""
        return np.asarray(_each(lambda x: float(self.formula(x)), t))

    def density(self, t: Any) -> Floats:
        return np.asarray(_each(self._density_at, t))

    def cdf(self, t: Any) -> Floats:
        t = np.asarray(t, dtype=np.float64)
        tail = np.asarray(self._inversion.cdf(-np.abs(t) / self.length)) / 2
        return np.asarray(np.where(t < 0, tail, 1 - tail))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = self.length * np.asarray(self._inversion.ppf(2 * np.minimum(u, 1 - u).astype(np.float64)))
        return np.asarray(np.where(u < 0.5, tail, -tail).astype(np.result_type(u.dtype, np.float32)))

    def score(self, t: Any) -> Floats:
        return np.asarray(_each(self._score_at, t))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(_each(self._characteristic_function_at, omega))

    def _density_at(self, t: float) -> float:
        return float(self.formula(t)) / self.mass if abs(t) < self.reach else 0.0

    def _limit_at(self, t: float) -> float:
        """The formula at t; at the ends of the support, where it need not be defined, just inside them."""
        if isinf(t):
            return 0.0
        return float(self.formula(t if abs(t) < self.reach else copysign(nextafter(self.reach, 0.0), t)))

    def _score_at(self, t: float) -> float:
        # A central difference of the logarithm; eps^(1/3) of the distance over which it varies balances
        # truncation and rounding.
        step = float(np.finfo(np.float64).eps ** (1 / 3)) * min(max(self.length, abs(t)), self.reach - abs(t))
        below, above = self._density_at(t - step), self._density_at(t + step)
        return float(np.log(above / below)) / (2 * step) if step > 0 and below > 0 and above > 0 else 0.0

    def _characteristic_function_at(self, omega: float) -> float:
        if omega == 0:
            return 1.0
        from scipy.integrate import quad

        # The oscillatory rules of QUADPACK: Clenshaw and Curtis' on decades up to a period, and beyond it
        # Fourier's, which steps by periods.
        unit, rate = self.length, abs(omega) * self.length
        reach = self.reach / unit
        far = min(max(10.0, 2 * np.pi / rate), reach)
        ends = [0.0, *(d for d in 10.0 ** np.arange(-1, 18) if d < far), far]
        value, error = 0.0, 0.0
        for start, stop in itertools.pairwise([*ends, reach] if far < reach else ends):
            part = quad(
                lambda x: unit * self._limit_at(unit * x) / self.mass,
                start,
                stop,
                weight="cos",
                wvar=rate,
                epsabs=1e-12,
                limit=200,
                full_output=1,
            )
            value, error = value + 2 * float(part[0]), error + 2 * float(part[1])
        if not error < _TRANSFORM_TOLERANCE:
            raise ArithmeticError(f"{self!r}: its transform at {omega:g} is known to {error:.1g} only")
        return value

    @property
    def _edge_power(self) -> float:
        """The power p with which the density ends, K ~ (reach - t)^p; infinite where the support is."""
        if np.isinf(self.reach):
            return np.inf
        near, far = self._density_at(self.reach * (1 - 1e-8)), self._density_at(self.reach * (1 - 1e-6))
        return round(float(np.log10(far / near)) / 2, 3) if near > 0 else np.inf

    def _integral(self, function: Callable[[float], float], low: float = 0.0) -> float:
        """Integrate from ``low`` >= 0 to the end of the support.

        Raises
        ------
        ArithmeticError
            If the integral does not converge to 1e-7.
        """
        found = integral(function, low, self.reach, max(self.length, low))
        if not found.converged:
            raise ArithmeticError(found.complaint or "it overflows")
        return found.value

    @cached_property
    def _inversion(self) -> Any:
        from scipy.stats.sampling import NumericalInversePolynomial

        unit = self.length

        def scaled(x: float) -> float:
            return self._limit_at(unit * x)

        return NumericalInversePolynomial(
            _Distribution(scaled),  # type: ignore[arg-type]  # the stubs ask for more than a pdf
            # The left half alone: the right one is its reflection.
            domain=(-self.reach / unit, 0.0),
            center=-1.0,
            u_resolution=_U_RESOLUTION,
        )

    def __getstate__(self) -> dict[str, Any]:
        # The inversion table cannot be pickled, and is as well built again where it is needed.
        return {name: value for name, value in self.__dict__.items() if name != "_inversion"}


@dataclass(frozen=True)
class _Distribution:
    """The form in which scipy's generators take a density."""

    pdf: Callable[..., float]


def _each(function: Callable[[float], float], values: Any) -> Any:
    return np.vectorize(function, otypes=[np.float64])(values)
