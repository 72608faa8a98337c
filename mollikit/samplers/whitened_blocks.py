from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.samplers.frames import chi, haar_frames
from mollikit.samplers.tiled import Tiled


@dataclass(frozen=True)
class WhitenedBlocks(Tiled):
    """Groups that are whitened on every tile of the input's grid, their radii then drawn anew.

    The n points of a group, seen on a tile of m coordinates, are the rows of an n x m Haar frame whose
    columns sum to zero: the law of n normals less their mean, whitened. The lengths of such rows are not
    those of normals; so each keeps its direction, which is uniform on the sphere, and is given an
    independent length chi_m. Each point is then exactly N(0, I), and means and second moments of a group
    are fixed but for the radii.

    Parameters
    ----------
    points : int
        Points in a group, at least 3.
    tile : tuple of int, optional
        Extents of a tile along the last axes, of at most points - 1 coordinates; by default nearly
        square, on the last two axes: give one for images whose channels come last.

    Raises
    ------
    ValueError
        If there are fewer than 3 points, a tile has as many coordinates as a group has points, or the input
        has no grid: one axis, several inputs, or coordinates that do not move.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.WhitenedBlocks(tile=(3, 5)).group_size(dimension=784)
    32
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 3:
            raise ValueError(f"WhitenedBlocks({self.points}): a group has at least 3 points")

    def _most_coordinates(self) -> int:
        return self.points - 1

    def check_grid(self, shape: tuple[int, ...]) -> None:
        super().check_grid(shape)
        size = int(np.prod(self._tile_on(shape)))
        if size >= self.points:
            raise ValueError(
                f"groups of {self.points} points can be whitened on tiles of at most {self.points - 1} "
                f"coordinates, and tile={self.tile} has {size}; take at least {size + 1} points"
            )

    def _points_of_tiles(
        self, rng: np.random.Generator, size: int, count: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        frames = haar_frames(rng, size, self.points - 1, count, dtype)
        columns = frames.transpose(1, 0, 2).reshape(self.points - 1, -1)
        rows: NDArray[Any] = (_zero_sum_basis(self.points).astype(dtype) @ columns).reshape(
            self.points, size, count
        )
        rows *= chi(rng, size, (self.points, 1, count), dtype) / np.sqrt(
            np.einsum("nct,nct->nt", rows, rows)[:, None]
        )
        return rows


def _zero_sum_basis(n: int) -> NDArray[np.float64]:
    """Return an orthonormal basis of the vectors of n entries that sum to zero, (n, n - 1): Helmert's."""
    basis: NDArray[np.float64] = np.triu(np.ones((n, n - 1)))
    k = np.arange(1, n)
    basis[k, k - 1] = -k
    basis /= np.sqrt(k * (k + 1))
    return basis
