from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.kernels.base import Floats, Kernel
from mollikit.kernels.measured import holder_exponent, integral, moment_limit
from mollikit.scales import Scale

# Asked of the numerical inverse CDF, in u: far below what any sample can tell.
_U_RESOLUTION = 1e-12
# The largest error in u with which a kernel is accepted: 1e16 samples would be needed to see it.
_U_TOLERANCE = 1e-8
# Of the tail: below it the quantiles that PINV tabulates leave the range where it converges.
_LEAST_POWER = 2.0
_PROBES = np.concatenate([[0.0], np.geomspace(1e-18, 1e9, 1081)])


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
        t = _PROBES[self.reach > _PROBES]
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
        unit = self.length
        far = min(max(10 * unit, 2 * np.pi / abs(omega)), self.reach)
        ends = [0.0, *(d for d in unit * 10.0 ** np.arange(-1, 18) if d < far), far]
        ends += [self.reach] if far < self.reach else []
        return 2 * sum(
            float(quad(self._density_at, a, b, weight="cos", wvar=omega, epsabs=1e-12, limit=200)[0])
            for a, b in itertools.pairwise(ends)
        )

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
            return float(self.formula(unit * x)) if np.isfinite(x) else 0.0

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


def from_density(
    formula: Callable[[float], float], scale: ArrayLike | Scale, reach: float = np.inf
) -> Density:
    """Make a kernel of a formula of one's own: normalised, with an inverse CDF, a score and a transform.

    Parameters
    ----------
    formula : callable
        Even and non-negative on (-reach, reach), up to a factor: a float in, a float out. It is called, never
        evaluated as text. An estimate whose executor runs processes needs one that can be pickled.
    scale : float, array or Scale
        As for any kernel, of the formula's own t.
    reach : float
        Where the support ends; infinite by default.

    Returns
    -------
    Density
        Its ``mass`` is what the formula integrates to, its ``u_error`` the error found in its inverse CDF.

    Raises
    ------
    TypeError
        If the formula is not a function from a float to a float.
    ValueError
        If the formula is negative, not even, not finite or undefined somewhere, its integral is zero or does
        not converge, or its inverse CDF cannot be had to 1e-8.

    Source: Derflinger, Hoermann and Leydold 2010, "Random variate generation by numerical inversion when
    only the density is known", as implemented in ``scipy.stats.sampling.NumericalInversePolynomial``.

    Examples
    --------
    >>> import mollikit as mk
    >>> kernel = mk.from_density(lambda t: 1 / (1 + t**4), scale=0.1)
    >>> round(kernel.mass, 6), kernel.u_error < 1e-10
    (2.221441, True)
    """
    if not callable(formula):
        raise TypeError(
            f"from_density: {formula!r} is not a function; write it as one, such as lambda t: exp(-t * t)"
        )
    if not reach > 0:
        raise ValueError(f"from_density: reach={reach!r} must be positive")
    kernel = Density(scale, formula, float(reach))
    # Over all magnitudes, for a formula of any width, and evenly over the part that carries the mass.
    for t in _PROBES[reach > _PROBES]:
        _probe(formula, float(t))
    if not formula(kernel.length) > 0:
        raise ValueError(
            "from_density: the formula is zero wherever it was tried; a density has a positive mass"
        )
    for t in np.linspace(0, min(reach, 8 * kernel.length), 1025)[:-1]:
        _probe(formula, float(t))
    power = 1 + moment_limit(kernel.formula_values, kernel.length, kernel.reach)
    if power < _LEAST_POWER:
        raise ValueError(
            f"from_density: the formula's tail falls as t^-{power:g}: "
            + ("its integral does not converge" if power == 1 else "its inverse CDF has no numerical form")
            + "; make it fall at least as t^-2, as the Cauchy density does, or give it a finite reach"
        )
    try:
        mass = kernel.mass
    except ArithmeticError as error:
        raise ValueError(f"from_density: no finite integral of the formula could be found: {error}") from None
    if not mass > 0:
        raise ValueError(f"from_density: the formula integrates to {mass!r}; a density has a positive mass")
    _refuse_uninvertible(kernel)
    return kernel


def _probe(formula: Callable[[float], float], t: float) -> None:
    """Raise where the formula is not an even density at t."""
    try:
        right, left = float(formula(t)), float(formula(-t))
    except TypeError as error:
        raise TypeError(
            f"from_density: the formula does not turn the float {t:g} into a float: {error}"
        ) from error
    except ArithmeticError as error:
        raise ValueError(
            f"from_density: the formula raises {type(error).__name__} at t={t:g} ({error}); "
            "it must be defined on all of its support: write it so that it is, or give it a finite reach"
        ) from error
    for value, at in ((right, t), (left, -t)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(
                f"from_density: the formula is {value!r} at t={at:g}; a density is finite and at least 0"
            )
    if not np.isclose(left, right, rtol=1e-9, atol=0):
        raise ValueError(
            f"from_density: the formula is {right!r} at {t:g} and {left!r} at {-t:g}; a kernel is even"
        )


def _refuse_uninvertible(kernel: Density) -> None:
    from scipy.stats.sampling import UNURANError

    try:
        error = kernel.u_error
    except (UNURANError, ArithmeticError) as failure:
        raise ValueError(
            f"from_density: no inverse CDF could be built for this formula: {failure}"
        ) from failure
    if not error < _U_TOLERANCE:
        raise ValueError(
            f"from_density: the inverse CDF found for this formula is off by {error:.2g} in probability; "
            "a narrow spike or a jump inside the support stands in its way"
        )


def _each(function: Callable[[float], float], values: Any) -> Any:
    return np.vectorize(function, otypes=[np.float64])(values)
