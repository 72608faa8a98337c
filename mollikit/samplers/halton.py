from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, cube_of_words
from mollikit.samplers.quantiles import seen_as

_MAX_DIMENSION = 32


@dataclass(frozen=True)
class Halton(Sampler):
    """Groups are replicates of the first points of a scrambled Halton sequence, each shifted modulo 1.

    Coordinate j is the radical inverse in the j-th prime base. One set per number of points and
    dimension is scrambled by scipy (random permutations of the digits) and kept; the shift, 64 random bits
    in each coordinate, makes every point of a replicate exactly uniform and the replicates independent.
    Unlike Sobol's it may have any number of points. In high dimensions the bases are large
    primes, neighbouring coordinates fill the square badly, and the points become worse than independent ones.

    Source: Halton 1960; Owen 2017, "A randomized Halton algorithm in R" (the scramble); Cranley and
    Patterson 1976, "Randomization of number theoretic methods for multiple integration" (the shift).

    Parameters
    ----------
    points : int
        Points in a replicate, from 2 to 65536.

    Raises
    ------
    ValueError
        If the number of points is out of range, or the input has more than 32 moving coordinates.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Halton(100).group_size(dimension=4)
    100
    """

    points: int = 64

    def __post_init__(self) -> None:
        if not 2 <= self.points <= 65536:
            raise ValueError(f"Halton({self.points}): a replicate has 2 to 65536 points")

    def group_size(self, dimension: int) -> int:
        return self.points

    def check(self, dimension: int) -> None:
        if dimension > _MAX_DIMENSION:
            raise ValueError(
                f"Halton serves at most {_MAX_DIMENSION} coordinates, above which it does harm, and this "
                f"input has {dimension} that move; use Sobol, Recentred or LatinHypercube"
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
        words = _scrambled_words(self.points, dimension) + rng.bit_generator.random_raw(
            (groups, 1, dimension)
        )
        return seen_as(view, cube_of_words(words).reshape(groups, -1, *shape), dtype)


@lru_cache(maxsize=2)
def _scrambled_words(points: int, dimension: int) -> NDArray[np.uint64]:
    """Return the scrambled points as fractions of 2^64, so that sums wrap modulo 1."""
    from scipy.stats import qmc

    engine = qmc.Halton(dimension, scramble=True, rng=np.random.default_rng(0))
    words = np.ldexp(engine.random(points), 64).astype(np.uint64)
    words.setflags(write=False)
    return words
