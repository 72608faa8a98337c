from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.samplers.frames import chi, haar_frames
from mollikit.samplers.tiled import Tiled


@dataclass(frozen=True)
class LocalBlocks(Tiled):
    """Pairs t and -t whose t are orthogonal on every tile of the input's grid.

    On a tile of m coordinates the h = points / 2 directions are Haar frames of m (of h, if that is less),
    one after the other, with radii chi_m of their own: each point is exactly N(0, I). What is odd about x
    cancels, and what is quadratic inside a tile nearly so.

    Parameters
    ----------
    points : int
        Points in a group: an even number.
    tile : tuple of int, optional
        Extents of a tile along the last axes, (4, 8) or (3, 4, 4); by default nearly square, of at
        most points / 2 coordinates, on the last two axes: give one for images whose channels come last.

    Raises
    ------
    ValueError
        If the number of points is odd, or the input has no grid: one axis, several inputs, or
        coordinates that do not move.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.LocalBlocks(tile=(4, 4)).group_size(dimension=784)
    32
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 2 or self.points % 2:
            raise ValueError(
                f"LocalBlocks({self.points}): a group is made of pairs: give an even number of points"
            )

    def _most_coordinates(self) -> int:
        return self.points // 2

    def _points_of_tiles(
        self, rng: np.random.Generator, size: int, count: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        half = self.points // 2
        vectors = min(size, half)
        repeats = -(-half // vectors)
        frames = haar_frames(rng, vectors, size, repeats * count, dtype)
        frames = frames.reshape(vectors, size, repeats, count).transpose(2, 0, 1, 3).reshape(-1, size, count)
        z = frames[:half] * chi(rng, size, (half, 1, count), dtype)
        return np.concatenate([z, -z])
