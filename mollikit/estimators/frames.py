from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers import Sampler
from mollikit.samplers.base import open_uniforms


@dataclass(frozen=True)
class HaarFrames(Sampler):
    """Orthonormal frames, uniform among all of them, each direction with a radius chi_(d+2) of its own.

    What is drawn is r_k u_k, (groups, d, *shape): one arm of each of d secants, of which the other is its
    reflection, so that a group is 2 d evaluations. The radii are not those of a normal vector, chi_d:
    with t = rho u the smoothed gradient is E[rho u f(x + s rho u)] / s, which is

        E_chi_d[ rho^2 u (f(x + s rho u) - f(x - s rho u)) / (2 s rho) ],

    and rho^2 / d times the density of chi_d is the density of chi_(d+2). Hence d times the mean of
    u (f(x + s r u) - f(x - s r u)) / (2 s r) over uniform u and r ~ chi_(d+2), and the d directions of a
    uniform frame, each of them uniform on the sphere, make the factor d a sum over the frame.

    Source of the frames: Mezzadri 2007, "How to generate random matrices from the classical compact groups".
    """

    def group_size(self, dimension: int) -> int:
        return 2 * dimension

    def radii(self, rng: np.random.Generator, groups: int, dimension: int) -> NDArray[np.float64]:
        """Radii (groups, dimension) in units of the kernel's scale."""
        return np.sqrt(rng.chisquare(dimension + 2, size=(groups, dimension)))

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        d = int(np.prod(shape))
        frames = haar(rng, groups, d)
        frames *= self.radii(rng, groups, d)[:, :, None]
        return Normals(frames.reshape(groups, d, *shape))


def haar(rng: np.random.Generator, groups: int, dimension: int) -> NDArray[np.float64]:
    """Orthogonal matrices (groups, d, d), uniform in the orthogonal group; the directions are the rows."""
    # The orthogonal factor is uniform once the triangular one has a positive diagonal.
    q, r = np.linalg.qr(rng.standard_normal((groups, dimension, dimension)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return np.ascontiguousarray(q.swapaxes(1, 2))


@dataclass(frozen=True)
class CoordinateFrames(Sampler):
    """Uniforms (groups, d, d + 1): for each coordinate a jitter of all, and one number for the radius."""

    def group_size(self, dimension: int) -> int:
        return 2 * dimension

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        d = int(np.prod(shape))
        return Uniforms(open_uniforms(rng, (groups, d, d + 1)))
