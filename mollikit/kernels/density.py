from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.kernels.base import Floats, Kernel
from mollikit.scales import Scale

# Asked of the numerical inverse CDF, in u: far below what any sample can tell.
_U_RESOLUTION = 1e-12


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

    @property
    def variance(self) -> float:
        return self._mean(lambda t: t * t)

    @property
    def fisher_information(self) -> float:
        return self._mean(lambda t: float(self.score(t)) ** 2)

    @cached_property
    def mass(self) -> float:
        """The integral of the formula, by which the density is divided."""
        return 2 * self._quad(self.formula)

    @cached_property
    def u_error(self) -> float:
        """Largest |F(Q(u)) - u| at 99 points of the lower half, F by adaptive quadrature of the density."""
        u = np.concatenate([np.geomspace(1e-9, 1e-3, 50), np.linspace(0.01, 0.49, 49)])
        tails = [0.5 - self._quad(self.formula, 0.0, -t) / self.mass for t in self.inverse_cdf(u)]
        return float(np.abs(np.array(tails) - u).max())

    def density(self, t: Any) -> Floats:
        return np.asarray(_each(self._density_at, t))

    def inverse_cdf(self, u: Any) -> Floats:
        u = np.asarray(u)
        tail = np.asarray(self._inversion.ppf(np.minimum(u, 1 - u).astype(np.float64)))
        return np.asarray(np.where(u < 0.5, tail, -tail).astype(np.result_type(u.dtype, np.float32)))

    def score(self, t: Any) -> Floats:
        return np.asarray(_each(self._score_at, t))

    def characteristic_function(self, omega: Any) -> Floats:
        return np.asarray(_each(self._characteristic_function_at, omega))

    def _density_at(self, t: float) -> float:
        return self.formula(t) / self.mass if abs(t) < self.reach else 0.0

    def _score_at(self, t: float) -> float:
        # A central difference of the logarithm; a step of eps^(1/3) balances truncation and rounding.
        step = float(np.finfo(np.float64).eps ** (1 / 3)) * max(1.0, abs(t))
        low, high = max(t - step, -self.reach), min(t + step, self.reach)
        below, above = self._density_at(low), self._density_at(high)
        return float(np.log(above / below)) / (high - low) if below > 0 and above > 0 else 0.0

    def _characteristic_function_at(self, omega: float) -> float:
        if omega == 0:
            return 1.0
        from scipy.integrate import quad

        # The oscillatory rules of QUADPACK: Fourier's on a half-line, Clenshaw and Curtis' on an interval.
        value = quad(self.formula, 0, self.reach, weight="cos", wvar=omega, limit=400)[0]
        return 2 * float(value) / self.mass

    def _mean(self, function: Callable[[float], float]) -> float:
        """E[function(t)], of an even function."""
        return 2 * self._quad(lambda t: function(t) * self.formula(t)) / self.mass

    def _quad(self, function: Callable[[float], float], low: float = 0.0, high: float | None = None) -> float:
        from scipy.integrate import quad

        return float(quad(function, low, self.reach if high is None else high, limit=400)[0])

    @cached_property
    def _inversion(self) -> Any:
        from scipy.stats.sampling import NumericalInversePolynomial

        return NumericalInversePolynomial(
            _Distribution(self.formula),  # type: ignore[arg-type]  # the stubs ask for a cdf and a logpdf too
            domain=self.support,
            center=0.0,
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
        evaluated as text.
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
    ValueError
        If the formula is negative, not even, not finite, or its integral is zero or does not converge.

    Source: Derflinger, Hoermann and Leydold 2010, "Random variate generation by numerical inversion when
    only the density is known", as implemented in ``scipy.stats.sampling.NumericalInversePolynomial``.

    Examples
    --------
    >>> import mollikit as mk
    >>> kernel = mk.from_density(lambda t: 1 / (1 + t**4), scale=0.1)
    >>> round(kernel.mass, 6), kernel.u_error < 1e-10
    (2.221441, True)
    """
    if not reach > 0:
        raise ValueError(f"from_density: reach={reach!r} must be positive")
    kernel = Density(scale, formula, float(reach))
    probes = np.linspace(0, 1, 65)[:-1] * reach if np.isfinite(reach) else np.tan(np.linspace(0, 1.57, 65))
    for t in map(float, probes):
        right, left = float(formula(t)), float(formula(-t))
        if not (np.isfinite(right) and right >= 0):
            raise ValueError(
                f"from_density: the formula is {right!r} at t={t:g}; a density is finite and at least 0"
            )
        if not np.isclose(left, right, rtol=1e-9, atol=0):
            raise ValueError(
                f"from_density: the formula is {right!r} at {t:g} and {left!r} at {-t:g}; a kernel is even"
            )
    _refuse_unnormalisable(formula, reach)
    return kernel


def _refuse_unnormalisable(formula: Callable[[float], float], reach: float) -> None:
    import warnings

    from scipy.integrate import IntegrationWarning, quad

    with warnings.catch_warnings():
        warnings.simplefilter("error", IntegrationWarning)
        try:
            mass = float(quad(formula, 0, reach, limit=400)[0])
        except IntegrationWarning as warning:
            told = str(warning).splitlines()[0]
            raise ValueError(
                f"from_density: the formula has no finite integral that could be found ({told})"
            ) from None
    if not (np.isfinite(mass) and mass > 0):
        raise ValueError(
            f"from_density: the formula integrates to {2 * mass!r}; a density has a positive finite mass"
        )


def _each(function: Callable[[float], float], values: Any) -> Any:
    return np.vectorize(function, otypes=[np.float64])(values)
