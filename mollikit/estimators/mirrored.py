from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers import Sampler


@dataclass(frozen=True)
class Mirrored(Sampler):
    """The points of another sampler's groups and their reflections: half of a group, then the other half.

    Parameters
    ----------
    sampler : Sampler
    """

    sampler: Sampler

    @property
    def biased(self) -> bool:  # type: ignore[override]  # a matter of the sampler inside, not of the class
        """Whether the sampler inside is."""
        return self.sampler.biased

    def group_size(self, dimension: int) -> int:
        return 2 * self.sampler.group_size(dimension)

    def check(self, dimension: int) -> None:
        self.sampler.check(dimension)

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        drawn = self.sampler.draw(rng, groups, shape, dtype, view)
        points = drawn.values
        if isinstance(drawn, Normals):
            return Normals(np.concatenate([points, -points], axis=1))
        return Uniforms(np.concatenate([points, 1 - points], axis=1))
