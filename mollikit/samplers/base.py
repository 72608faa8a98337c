from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms


class Sampler(ABC):
    """A way of drawing points, in *groups* that are independent of each other.

    The points of a group may depend on each other, but each has exactly the kernel's law. Error bars
    come from the spread of group means. A sampler is a value: it holds no state, and the randomness
    arrives with the call.
    """

    biased: ClassVar[bool] = False
    # Groups without which an error bar says too little: nets, whose means are not normal, need more.
    fewest_groups: ClassVar[int] = 2

    @abstractmethod
    def group_size(self, dimension: int) -> int:
        """Points in a group, for inputs of this many moving coordinates."""

    def check(self, dimension: int) -> None:  # noqa: B027 - most samplers have no limit
        """Raise ValueError, naming the limit, where the sampler cannot serve this many coordinates."""

    def check_grid(self, shape: tuple[int, ...]) -> None:  # noqa: B027 - most samplers do not look at it
        """Raise ValueError where the sampler needs a grid of the moving coordinates and they have none."""

    @abstractmethod
    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        """Draw whole groups.

        Parameters
        ----------
        rng : numpy.random.Generator
            The stream that belongs to these groups.
        groups : int
            How many.
        shape : tuple of int
            Of the moving coordinates: the input's own grid where all of them move.
        dtype : numpy.dtype
            Of normals; uniforms are float64, whose resolution the tails need.
        view : type
            The view that the kernel would like; a sampler that is built on the other ignores it.

        Returns
        -------
        Normals or Uniforms
            Values of shape (groups, group_size, *shape).
        """


def open_uniforms(rng: np.random.Generator, size: tuple[int, ...], bits: int = 52) -> NDArray[np.float64]:
    """Uniforms on the grid (k + 1/2) 2^-bits: never 0 or 1, and 1 - u lies on the grid, exactly."""
    return cube_of_words(rng.bit_generator.random_raw(size), bits)


def cube_of_words(words: NDArray[np.uint64], bits: int = 52) -> NDArray[np.float64]:
    """Uniforms from the leading bits of 64-bit words, which are overwritten."""
    words >>= np.uint64(64 - bits)
    u = words.astype(np.float64)
    u += 0.5
    u *= 2.0**-bits
    return u
