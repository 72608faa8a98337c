from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.special import ndtri

from mollikit.pointsets import Normals, Uniforms

_SPLIT = 6.0
_LAST = 6.1  # sqrt(w) at the smallest uniform, 2^-53, is 5.95
_AT_ONCE = 1 << 14  # values whose workings stay in a core's cache


def seen_as(
    view: type[Normals] | type[Uniforms], u: NDArray[np.float64], dtype: np.dtype[Any]
) -> Normals | Uniforms:
    """Show points of the cube as the kernel would like them.

    Only normals in single precision are worth making here: they take half the time of ndtri.
    """
    return Normals(single_normals(u)) if view is Normals and dtype == np.float32 else Uniforms(u)


def single_normals(u: NDArray[np.float64]) -> NDArray[np.float32]:
    """Normal quantiles in single precision, of relative error below 1e-6 down to both ends of the grid.

    With v = u - 1/2 and w = -log(4 u (1 - u)), the quantile is v times a smooth function of w, even in
    v; it is taken from polynomials in w up to w = 6 and in sqrt(w) beyond. Both ends are measured from the
    nearer one, in double precision, so that the tails keep the resolution of u.

    Source: the substitution is that of Giles 2010, "Approximating the erfinv function".

    Examples
    --------
    >>> single_normals(np.array([0.975])).round(5)
    array([1.95996], dtype=float32)
    """
    z = np.empty(u.shape, np.float32)
    into, points = z.reshape(-1), u.reshape(-1)
    for start in range(0, len(points), _AT_ONCE):
        into[start : start + _AT_ONCE] = _quantiles(points[start : start + _AT_ONCE])
    return z


def _quantiles(u: NDArray[np.float64]) -> NDArray[np.float32]:
    v = u - 0.5
    tail = (0.5 - np.abs(v)).astype(np.float32)
    w = 1 - tail
    w *= tail
    w *= 4
    np.log(w, out=w)
    np.negative(w, out=w)
    centre, far = _polynomials()
    z = _horner(centre, w * np.float32(2 / _SPLIT) - np.float32(1))
    rare = np.flatnonzero(w > _SPLIT)
    low = np.sqrt(_SPLIT)
    z[rare] = _horner(far, (np.sqrt(w[rare]) * 2 - np.float32(_LAST + low)) * np.float32(1 / (_LAST - low)))
    z *= v
    return z


def _horner(coefficients: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    result = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result *= x
        result += c
    return result


@lru_cache(maxsize=1)
def _polynomials() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Interpolate the ratio of the quantile to v in Chebyshev points, from ndtri itself."""

    def ratio(w: NDArray[np.float64]) -> NDArray[np.float64]:
        twice_v = np.sqrt(-np.expm1(-w))  # from w = -log(1 - 4 v^2)
        tail = np.exp(-w) / (2 * (1 + twice_v))
        return np.asarray(-2 * ndtri(tail) / twice_v)

    centre = Chebyshev.interpolate(ratio, 9, domain=[0, _SPLIT])
    far = Chebyshev.interpolate(lambda y: ratio(y * y), 10, domain=[np.sqrt(_SPLIT), _LAST])
    return _powers(centre), _powers(far)


def _powers(series: Chebyshev) -> NDArray[np.float32]:
    """Coefficients of the powers of the variable mapped to [-1, 1]."""
    unit = Chebyshev(series.coef)
    return np.asarray(unit.convert(kind=Polynomial).coef, dtype=np.float32)
