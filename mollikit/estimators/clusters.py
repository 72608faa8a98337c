from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers import Sampler


@dataclass(frozen=True)
class Clusters(Sampler):
    """A sampler whose groups are several of another's, independent of each other.

    Parameters
    ----------
    sampler : Sampler
    count : int
        Its groups in each group of this one.
    """

    sampler: Sampler
    count: int

    @property
    def biased(self) -> bool:  # type: ignore[override]  # a matter of the sampler inside, not of the class
        """Whether the sampler inside is."""
        return self.sampler.biased

    def group_size(self, dimension: int) -> int:
        return self.count * self.sampler.group_size(dimension)

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
        drawn = self.sampler.draw(rng, groups * self.count, shape, dtype, view)
        return type(drawn)(drawn.values.reshape(groups, -1, *shape))
