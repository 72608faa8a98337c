from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, open_uniforms


@dataclass(frozen=True)
class LatinHypercube(Sampler):
    """Groups of n points with one point in each of n equal slices of every coordinate.

    The additive part of the gradient, a sum of functions of one coordinate each, loses nearly all of
    its variance. Each point is uniform in the cube. There is no limit on the dimension.

    Source: McKay, Beckman and Conover 1979, "A comparison of three methods for selecting values of
    input variables in the analysis of output from a computer code".

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
        size = (groups, self.points, *shape)
        slices = np.argsort(rng.random(size, dtype=np.float64), axis=1)
        # 36 bits inside a slice and at most 16 for its number: the sum is exact and below n.
        return Uniforms((slices + open_uniforms(rng, size, bits=36)) / self.points)
