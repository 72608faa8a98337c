from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler


@dataclass(frozen=True)
class Tiled(Sampler):
    """Groups whose points are structured inside each tile of the input's grid, independently of other tiles.

    A gradient's dependence on its input is mostly local: coordinates far apart interact little, so that
    structure on tiles of a few coordinates, which a small group can hold, is nearly as good as on all.

    Parameters
    ----------
    points : int
        Points in a group.
    tile : tuple of int, optional
        Extents of a tile along the last axes; along axes before these it extends over one. At the
        edges tiles are cut. By default nearly square on the last two axes.

    Raises
    ------
    ValueError
        If the input has no grid (one axis, several inputs, or coordinates that do not move), or the tile
        does not suit the grid or the group.
    """

    points: int = 32
    tile: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and (not self.tile or min(self.tile) < 1):
            raise ValueError(f"tile={self.tile}: a tile extends over at least one coordinate along each axis")

    def group_size(self, dimension: int) -> int:
        return self.points

    def check_grid(self, shape: tuple[int, ...]) -> None:
        name = type(self).__name__
        if len(shape) < 2:
            raise ValueError(
                f"{name} works on tiles of the input's grid, and this is an input without a grid: its moving "
                f"coordinates have the shape {shape}; use Recentred or LatinHypercube, or one input of two "
                "axes or more of which every coordinate moves"
            )
        if self.tile is not None and len(self.tile) > len(shape):
            raise ValueError(f"tile={self.tile} has more axes than the input's grid {shape}")

    @final
    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        self.check_grid(shape)
        exact = np.dtype(np.float64 if dtype.itemsize >= 8 else np.float32)
        values = np.empty((groups, self.points, *shape), dtype)
        for region, counts, extents in _equal_tiles(shape, self._tile_on(shape)):
            size, count = int(np.prod(extents)), groups * int(np.prod(counts))
            drawn = self._points_of_tiles(rng, size, count, exact)
            rank = len(shape)
            drawn = drawn.reshape(self.points, *extents, groups, *counts)
            pairs = [axis for i in range(rank) for axis in (rank + 2 + i, 1 + i)]
            drawn = drawn.transpose(rank + 1, 0, *pairs)
            where: tuple[Any, ...] = (..., *region)
            values[where] = drawn.reshape(
                groups, self.points, *(n * t for n, t in zip(counts, extents, strict=True))
            )
        return Normals(values)

    @abstractmethod
    def _points_of_tiles(
        self, rng: np.random.Generator, size: int, count: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Draw groups for ``count`` tiles of ``size`` coordinates, (points, size, count)."""

    @abstractmethod
    def _most_coordinates(self) -> int:
        """Coordinates of the largest tile that a group of these points can fill with structure."""

    def _tile_on(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.tile is None:
            # A power of two of coordinates, as the sides of images divide by.
            log = self._most_coordinates().bit_length() - 1
            tile: tuple[int, ...] = (1 << log // 2, 1 << (log - log // 2))
        else:
            tile = self.tile
        tile = (1,) * (len(shape) - len(tile)) + tile
        return tuple(min(t, n) for t, n in zip(tile, shape, strict=True))


def _equal_tiles(
    shape: tuple[int, ...], tile: tuple[int, ...]
) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...], tuple[int, ...]]]:
    """Cut a grid into regions of equal tiles: the whole tiles, and those cut at the far edges.

    Yields each region, and the number and the extent of its tiles along each axis.
    """
    axes: list[list[tuple[slice, int, int]]] = []
    for n, t in zip(shape, tile, strict=True):
        whole, rest = divmod(n, t)
        pieces = [(slice(0, whole * t), whole, t)]
        if rest:
            pieces.append((slice(whole * t, n), 1, rest))
        axes.append(pieces)
    for region in product(*axes):
        yield (
            tuple(part for part, _, _ in region),
            tuple(n for _, n, _ in region),
            tuple(t for _, _, t in region),
        )
