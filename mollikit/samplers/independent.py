from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler, open_uniforms


@dataclass(frozen=True)
class Independent(Sampler):
    """Independent points: plain Monte Carlo, the yardstick for the others. A group is one point.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Independent().group_size(dimension=784)
    1
    """

    def group_size(self, dimension: int) -> int:
        return 1

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
            return Normals(standard_normals(rng, size, dtype))
        return Uniforms(open_uniforms(rng, size))


def standard_normals(rng: np.random.Generator, size: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Draw standard normals in the input's precision (float32 for half, float64 for extended precision)."""
    if dtype.itemsize >= 8:
        return rng.standard_normal(size).astype(dtype, copy=False)
    return rng.standard_normal(size, dtype=np.float32).astype(dtype, copy=False)
