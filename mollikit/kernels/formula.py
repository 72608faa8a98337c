from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mollikit.kernels.density import PROBES, Density
from mollikit.kernels.measured import moment_limit
from mollikit.scales import Scale

# The largest error in u with which a kernel is accepted: 1e16 samples would be needed to see it.
_U_TOLERANCE = 1e-8
# Of the tail: below it the quantiles that PINV tabulates leave the range where it converges.
_LEAST_POWER = 2.0


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
    for t in PROBES[reach > PROBES]:
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
    except ValueError as error:
        raise ValueError(f"from_density: the formula fails at t={t:g}: {error}") from error
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
