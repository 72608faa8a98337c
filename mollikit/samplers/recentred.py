from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler
from mollikit.samplers.independent import standard_normals


@dataclass(frozen=True)
class Recentred(Sampler):
    """Groups of g normals less their mean, times sqrt(g / (g - 1)): the linear part cancels in each group.

    The points z_i - mean(z) are normal with variance 1 - 1/g, so that the factor makes each of them
    exactly standard normal, while the group sums to zero. With L the linear share of the gradient's
    variance the variance factor approaches 1 / (1 - L). A component of degree k keeps the factor
    1 + (g - 1) (-1 / (g - 1))^k of its variance: quadratic parts are a third worse in groups of 4
    and a seventh in groups of 8. Under a kernel other than the Gaussian the law is exact too (by
    Phi and the inverse CDF), and the cancellation is approximate.

    Parameters
    ----------
    points : int
        Points in a group, at least 2.

    Raises
    ------
    ValueError
        If there are fewer than 2 points in a group.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Recentred(8).group_size(dimension=784)
    8
    """

    points: int = 8

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(
                f"Recentred({self.points}): a group needs at least 2 points to have a mean to take away"
            )

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
        z = standard_normals(rng, (groups, self.points, *shape), dtype)
        z -= z.mean(axis=1, keepdims=True)
        z *= dtype.type(np.sqrt(self.points / (self.points - 1)))
        return Normals(z)
