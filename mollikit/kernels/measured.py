"""What can be measured of a density that does not state it: its integrals, its tail, its smoothness."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DensityFunction = Callable[[NDArray[np.float64]], NDArray[np.floating[Any]]]

# Differences of this order see derivatives up to one less.
_ORDER = 4
# Steps in lengths: below 2^-9 the rounding of fourth differences would show beside h^4.
_COARSEST, _FINEST = 5, 9
# Where the tail's power is read, in lengths: far enough that the next term of a power law is below 1e-7.
_FAR = (1e7, 1e8)
# Of an integral, relative: what quadrature must promise for a number to be given.
_INTEGRAL_TOLERANCE = 1e-7
# And what it is asked for.
_ASKED = 1e-10
# A fit closer than this to a whole number is that number.
_DIGITS = 4


def moment_limit(density: DensityFunction, length: float, reach: float) -> float:
    """Order below which absolute moments exist, from the power K(t) ~ t^-a of the tail: a - 1.

    Infinite where the support is compact, or where the density underflows before 1e8 lengths.
    """
    if np.isfinite(reach):
        return np.inf
    near, far = density(length * np.array(_FAR)).astype(np.float64)
    if not far > 0:
        return np.inf
    power = np.log(near / far) / np.log(_FAR[1] / _FAR[0])
    return max(round(float(power) - 1, _DIGITS), 0.0)


@dataclass(frozen=True)
class Integral:
    """An integral by quadrature, with the error that QUADPACK states.

    Attributes
    ----------
    complaint : str
        What QUADPACK said where it did not reach its tolerance; empty where it did.
    """

    value: float
    error: float
    complaint: str

    @property
    def converged(self) -> bool:
        """Whether it is finite and known to 1e-7 of itself, or QUADPACK was content."""
        known = not self.complaint or self.error <= _INTEGRAL_TOLERANCE * abs(self.value)
        return bool(np.isfinite(self.value) and known)


def integral(function: Callable[[float], float], low: float, high: float, length: float) -> Integral:
    """Integrate from ``low`` >= 0 to ``high``, in units of a length and by its decades."""
    from scipy.integrate import quad

    value, error, complaint = 0.0, 0.0, ""
    ends = [low / length, *(x for x in (0.1, 1.0, 10.0, 100.0) if low < x * length < high), high / length]
    for start, stop in itertools.pairwise(ends):
        # With full_output a message comes in place of a warning.
        part = quad(
            lambda x: length * function(length * x),
            start,
            stop,
            epsabs=0,
            epsrel=_ASKED,
            limit=400,
            full_output=1,
        )
        value, error = value + float(part[0]), error + float(part[1])
        complaint = str(part[3]).splitlines()[0] if len(part) > 3 else complaint
    return Integral(value, error, complaint)


@dataclass(frozen=True)
class HolderExponent:
    """How fast the modulus of smoothness falls, sup |Delta_h^4 K| ~ h^exponent, fitted on halved steps.

    The exponent is 0 at a jump, 1 at a kink, k + 1 where the k-th derivative is continuous and has a kink,
    and 4 at most, where K has four derivatives or more.

    Attributes
    ----------
    exponent : float
        From the two finest steps.
    spread : float
        Its difference to that of the step before: whether the fit has settled.
    """

    exponent: float
    spread: float

    @property
    def smoothness(self) -> int:
        """The class C^k: -1 for a jump, 3 for three derivatives or more."""
        return int(np.ceil(round(self.exponent, 1))) - 1


def holder_exponent(density: DensityFunction, length: float, reach: float) -> HolderExponent:
    """Fit the decay of the modulus of smoothness of an even density, within 16 lengths of its middle.

    Source: DeVore and Lorentz 1993, "Constructive Approximation", chapter 2.
    """
    # The places tried are four times as dense as the steps, so that one falls near each kink.
    finest = length * 2.0 ** -(_FINEST + 2)
    margin = 2 * _ORDER * length * 2.0**-_COARSEST
    values = density(np.arange(-margin, min(reach, 16 * length) + margin, finest)).astype(np.float64)
    sups = []
    for level in range(_COARSEST, _FINEST + 1):
        stride = 2 ** (_FINEST + 2 - level)
        differences = values
        for _ in range(_ORDER):
            differences = differences[stride:] - differences[:-stride]
        sups.append(float(np.abs(differences).max()))
    rounding = 2**_ORDER * np.finfo(np.float64).eps * float(np.abs(values).max())
    if sups[-1] <= 4 * rounding:
        return HolderExponent(float(_ORDER), 0.0)
    slopes = np.log2(np.array(sups[:-1]) / np.array(sups[1:]))
    return HolderExponent(float(np.clip(slopes[-1], 0, _ORDER)), float(abs(slopes[-1] - slopes[-2])))
