from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, open_uniforms
from mollikit.samplers.independent import standard_normals


@dataclass(frozen=True)
class Antithetic(Sampler):
    """Pairs t and -t: the part of the gradient that is odd about x cancels exactly. A group is one pair.

    With O the odd share of the gradient's variance, the variance factor is 1 / (2 (1 - O)).

    Source: Hammersley and Morton 1956, "A new Monte Carlo technique: antithetic variates".

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Antithetic().group_size(dimension=784)
    2
    """

    def group_size(self, dimension: int) -> int:
        return 2

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        size = (groups, 1, *shape)
        if view is Normals:
            z = standard_normals(rng, size, dtype)
            return Normals(np.concatenate([z, -z], axis=1))
        u = open_uniforms(rng, size)
        return Uniforms(np.concatenate([u, 1 - u], axis=1))
