from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, cube_of_words
from mollikit.samplers.quantiles import seen_as

_LEAST, _MOST = 64, 4096  # points, where they are chosen here


@dataclass(frozen=True)
class Lattice(Sampler):
    """Groups are rank-1 lattices i z / n, i = 0 .. n - 1, each shifted modulo 1 and folded by the tent.

    The shift, 64 random bits in each coordinate, makes every point exactly uniform and the groups
    independent; the tent u -> 1 - |2 u - 1| keeps that law, and lets an integrand that is not periodic
    profit like one that is. The generator z is built component by component: each takes the value, not
    yet taken up to its sign, that is best for the worst-case error of the functions whose mixed first
    derivatives are square-integrable, all coordinates alike (product weights 1 / dimension). n is a
    power of two, which has n / 4 generators up to sign: as many coordinates can be served.

    Source: Nuyens and Cools 2006, "Fast algorithms for component-by-component construction of rank-1
    lattice rules in shift-invariant reproducing kernel Hilbert spaces"; Hickernell 2002, "Obtaining
    O(N^(-2+eps)) convergence for lattice quadrature rules" (the tent).

    Parameters
    ----------
    points : int, optional
        Points in a lattice, a power of two from 8 to 2^17. By default the least that has a generator
        for every coordinate, from 64 to 4096: up to 1024 coordinates.

    Raises
    ------
    ValueError
        If the number of points is not such a power of two, or the moving coordinates are more than n / 4.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Lattice().group_size(dimension=64)
    256
    """

    points: int | None = None

    def __post_init__(self) -> None:
        n = self.points
        if n is not None and not (8 <= n <= 1 << 17 and n & (n - 1) == 0):
            raise ValueError(f"Lattice({n}): a lattice has a power of two of points, from 8 to 2^17")

    def group_size(self, dimension: int) -> int:
        if self.points is not None:
            return self.points
        return min(max(_LEAST, _points_for(dimension)), _MOST)

    def check(self, dimension: int) -> None:
        n = self.group_size(dimension)
        if dimension > n // 4:
            more = f"take Lattice({_points_for(dimension)}), or " if dimension <= 1 << 15 else ""
            raise ValueError(
                f"a lattice of {n} points has {n // 4} generators that differ up to sign, and this input "
                f"has {dimension} coordinates that move; {more}use Recentred or LatinHypercube"
            )

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        dimension = int(np.prod(shape))
        n = self.group_size(dimension)
        steps = _generator(n, dimension) * np.uint64((1 << 64) // n)
        words = np.arange(n, dtype=np.uint64)[:, None] * steps
        words = words + rng.bit_generator.random_raw((groups, 1, dimension))
        # The tent: twice the word, reflected where that wraps.
        wrapped = words >> np.uint64(63)
        words <<= np.uint64(1)
        words ^= np.negative(wrapped)
        return seen_as(view, cube_of_words(words).reshape(groups, -1, *shape), dtype)


def _points_for(dimension: int) -> int:
    return 4 << (dimension - 1).bit_length()


@lru_cache(maxsize=8)
def _generator(points: int, dimension: int) -> NDArray[np.uint64]:
    """Build the generating vector, in O(dimension * points * log points).

    The squared error is -1 + mean over i of prod_j (1 + weight omega(i z_j / n)), with
    omega(x) = 2 pi^2 (x^2 - x + 1/6). The i with the same power of two in them, and z, run through the
    powers of 5 up to sign, and omega is even: so the sum over i for all z is a cyclic correlation
    on each such level. The levels of n / 2 and n / 4 do not tell one odd z from another.
    """
    k = points.bit_length() - 1
    powers = np.ones(points // 4, np.int64)
    for i in range(1, len(powers)):
        powers[i] = powers[i - 1] * 5 % points
    kernels, products = [], []
    for t in range(3, k + 1):
        x = (powers[: 1 << (t - 2)] % (1 << t)) / (1 << t)
        kernels.append(2 * np.pi**2 * (x * x - x + 1 / 6))
        products.append(np.ones(len(x)))
    spectra = [np.fft.rfft(omega) for omega in kernels]
    chosen = np.zeros(dimension, np.intp)
    taken = np.zeros(len(powers))
    for j in range(dimension):
        if j > 0:
            error = taken.copy()
            for product, spectrum in zip(products, spectra, strict=True):
                level = np.fft.irfft(np.conj(np.fft.rfft(product)) * spectrum, len(product))
                error += np.tile(level, len(powers) // len(level))
            chosen[j] = np.argmin(error)
        taken[chosen[j]] = np.inf
        for product, omega in zip(products, kernels, strict=True):
            product *= 1 + np.roll(omega, -(chosen[j] % len(omega))) / dimension
    generator = powers[chosen].astype(np.uint64)
    generator.setflags(write=False)
    return generator
