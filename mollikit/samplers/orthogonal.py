from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler
from mollikit.samplers.independent import standard_normals


@dataclass(frozen=True)
class Orthogonal(Sampler):
    """Groups of k orthonormal directions, each a pair r q and -r q with a radius of its own, r ~ chi_d.

    The directions are a Haar frame: the Q of a QR decomposition of d x k normals, its columns signed so
    that R has a positive diagonal. Q depends on the directions of the normal columns alone, so their own
    lengths serve as radii that are independent of it, and each point is exactly N(0, I). What is odd
    about x cancels, and what is quadratic nearly so as k comes close to d. Gains grow with k: take as
    many as the budget holds several times over.

    Source: Choromanski, Rowland and Weller 2017, "The unreasonable effectiveness of structured
    random orthogonal embeddings"; the sign: Mezzadri 2007, "How to generate random matrices
    from the classical compact groups".

    Parameters
    ----------
    directions : int
        Directions in a group of twice as many points; at most the number of moving coordinates.

    Raises
    ------
    ValueError
        If there are no directions, or more of them than moving coordinates.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Orthogonal(16).group_size(dimension=784)
    32
    """

    directions: int = 16

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise ValueError(f"Orthogonal({self.directions}): a group has at least one direction")

    def group_size(self, dimension: int) -> int:
        return 2 * self.directions

    def check(self, dimension: int) -> None:
        if self.directions > dimension:
            raise ValueError(
                f"{self.directions} directions cannot be orthogonal in {dimension} moving coordinates; "
                f"use Orthogonal({dimension}) or fewer"
            )

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        exact = np.dtype(np.float64 if dtype.itemsize >= 8 else np.float32)
        normals = standard_normals(rng, (groups, self.directions, int(np.prod(shape))), exact)
        radii = np.linalg.norm(normals, axis=2)
        frame, triangle = np.linalg.qr(np.swapaxes(normals, 1, 2))
        radii = np.copysign(radii, np.diagonal(triangle, axis1=1, axis2=2))
        z = np.swapaxes(frame * radii[:, None, :], 1, 2).reshape(groups, self.directions, *shape)
        return Normals(np.concatenate([z, -z], axis=1).astype(dtype, copy=False))
