from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler
from mollikit.samplers.recentred import Recentred
from mollikit.samplers.sobol import Sobol


@dataclass(frozen=True, eq=False)
class RotatedSobol(Sampler):
    """A Sobol net along given directions, its best coordinates along the first of them.

    Where the gradient varies mostly along a few directions, a net that is laid along them integrates far
    better than one along the axes. A point is z + Q (y - Q^T z): y are the normals of the net, one
    coordinate for each direction (a column of Q), z those of a recentred group. Both are exactly standard
    normal and independent of each other, and Q is orthonormal, so that each point is exactly N(0, I); a
    kernel other than the Gaussian gets its law by Phi and its inverse CDF, coordinate by coordinate.

    `Subspace` learns the directions from a pilot. They must not depend on the points drawn here.

    Parameters
    ----------
    directions : array (moving coordinates, k)
        Independent columns, the most important first; they are orthonormalised in their order.
    points : int
        Points in a net, a power of two from 2 to 2^20.

    Raises
    ------
    ValueError
        If the columns are not independent, or the number of points is not a power of two.

    Source: Acworth, Broadie and Glasserman 1998, "A comparison of some Monte Carlo and quasi Monte Carlo
    techniques for option pricing" (principal components); Constantine 2015, "Active subspaces".

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> mk.RotatedSobol(np.ones((4, 1)), points=64).group_size(dimension=4)
    64
    """

    directions: ArrayLike
    points: int = 128

    fewest_groups = 8

    def __post_init__(self) -> None:
        Sobol(self.points)
        given = np.asarray(self.directions, dtype=np.float64)
        if given.ndim != 2 or not 0 < given.shape[1] <= given.shape[0]:
            raise ValueError(
                f"RotatedSobol: directions have the shape {given.shape}; they are columns, at most as many "
                "as there are moving coordinates"
            )
        frame, triangle = np.linalg.qr(given)
        scales = np.abs(np.diagonal(triangle))
        if not (np.isfinite(given).all() and scales.min() > 1e-10 * scales.max()):
            raise ValueError("RotatedSobol: the directions are not finite and linearly independent")
        frame.setflags(write=False)
        object.__setattr__(self, "directions", frame)

    def __repr__(self) -> str:
        frame = np.ascontiguousarray(self.directions)
        told = hashlib.sha256(frame.tobytes()).hexdigest()[:12]
        return f"RotatedSobol(<{frame.shape[1]} directions {told}>, points={self.points})"

    def group_size(self, dimension: int) -> int:
        return self.points

    def check(self, dimension: int) -> None:
        coordinates, k = np.shape(self.directions)
        if coordinates != dimension:
            raise ValueError(
                f"RotatedSobol: the directions have {coordinates} coordinates, and {dimension} coordinates "
                "of this input move"
            )
        Sobol(self.points).check(k)

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        exact = np.dtype(np.float64 if dtype.itemsize >= 8 else np.float32)
        frame = np.asarray(self.directions, dtype=exact)
        dimension, k = frame.shape
        drawn = Sobol(self.points).draw(rng, groups, (k,), exact, Normals)
        y = drawn.values if isinstance(drawn, Normals) else ndtri(drawn.values)
        if k == dimension:
            z = y @ frame.T
        else:
            z = Recentred(self.points).draw(rng, groups, (dimension,), exact, Normals).values
            z += (y - z @ frame) @ frame.T
        return Normals(z.reshape(groups, self.points, *shape).astype(dtype, copy=False))
