from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, open_uniforms
from mollikit.samplers.quantiles import seen_as


@dataclass(frozen=True)
class LatinHypercube(Sampler):
    """Groups of n points with one point in each of n equal slices of every coordinate.

    The additive part of the gradient, a sum of functions of one coordinate each, loses nearly all of
    its variance. Each point is uniform in the cube. There is no limit on the dimension.

    Each coordinate has a permutation of the slices of its own. For n a power of two it is
    i -> a i + b over the field of n elements, a random and not zero, b random: two numbers instead
    of a sorted list, and any point is had without the others. Such permutations send any two points to every
    pair of slices alike, as those of all n! do, and the variance of a mean depends on pairs alone: it
    is exactly the same. For other n random numbers are sorted, which takes longer.

    Source: McKay, Beckman and Conover 1979, "A comparison of three methods for selecting values of
    input variables in the analysis of output from a computer code"; pairwise independent permutations:
    Carter and Wegman 1979, "Universal classes of hash functions".

    Parameters
    ----------
    points : int
        Points in a group, from 2 to 65536.

    Raises
    ------
    ValueError
        If the number of points is out of range.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.LatinHypercube(16).group_size(dimension=784)
    16
    """

    points: int = 16

    def __post_init__(self) -> None:
        if not 2 <= self.points <= 65536:
            raise ValueError(f"LatinHypercube({self.points}): a group has 2 to 65536 points")

    def group_size(self, dimension: int) -> int:
        return self.points

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        n, size = self.points, (groups, self.points, *shape)
        power_of_two = n & (n - 1) == 0
        slices = _affine(rng, n, (groups, 1, *shape)) if power_of_two else _sorted(rng, size)
        # 36 bits inside a slice and at most 16 for its number: the sum is exact and below n.
        u = open_uniforms(rng, size, bits=36)
        u += slices
        u /= n
        return seen_as(view, u, dtype)


def _sorted(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.intp]:
    return np.argsort(rng.random(size), axis=1)


def _affine(rng: np.random.Generator, n: int, size: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return a i + b over the field of n = 2^k elements, i = 0 .. n - 1 along the second axis.

    Sums are bitwise: the half of the i with a leading bit 2^j differs from the half below by a x^j.
    """
    polynomial = np.uint16(_primitive_polynomial(n) - n)
    a = rng.integers(1, n, size, np.uint16)
    slices = np.empty((size[0], n, *size[2:]), np.uint16)
    slices[:, :1] = rng.integers(0, n - 1, size, np.uint16, endpoint=True)
    top = n >> 1
    for j in range(n.bit_length() - 1):
        np.bitwise_xor(slices[:, : 1 << j], a, out=slices[:, 1 << j : 2 << j])
        overflows = (a & top) != 0
        a = (a & (top - 1)) << 1 ^ overflows * polynomial
    return slices


@lru_cache
def _primitive_polynomial(n: int) -> int:
    """Return the first polynomial over GF(2), as bits, modulo which x runs through all elements but 0."""
    for polynomial in range(n + 1, 2 * n, 2):
        element, order = 2 ^ polynomial if n == 2 else 2, 1
        while element > 1:
            element <<= 1
            element ^= polynomial if element & n else 0
            order += 1
        if element == 1 and order == n - 1:
            return polynomial
    raise AssertionError("there is a primitive polynomial of every degree")
