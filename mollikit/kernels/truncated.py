from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats, Law
from mollikit.pointsets import PointSet, Uniforms

# The largest uniform below 1: quantiles there are finite, as they are at the smallest.
_LAST = 1 - 2.0**-53
# Relative room, in epsilons of the input's dtype, that keeps rounding from stepping over a bound.
_ROOM = 8


@dataclass(frozen=True, eq=False)
class Truncated(Law):
    """A kernel cut off at the bounds of the input's domain and renormalised there: *another estimand*.

    Every point lies within the bounds, and has, in each coordinate, the kernel's density given that it
    does. The law is not even near a bound and depends on the input, so that the result is the mean of
    the gradient under it, E[grad f(x + s t) | low <= x + s t <= high], and not the gradient of a smoothed
    function: a linear f keeps its gradient, but estimators from values have no meaning here and refuse
    it. There are no weights. A kernel with `WithinBounds` stays within bounds by being narrower instead,
    and keeps its symmetry.

    Parameters
    ----------
    kernel : Kernel
        With its scale, which is not changed.
    low, high : float or array
        Bounds in the input's units, of a shape that broadcasts to the input's; infinite for none.

    Raises
    ------
    ValueError
        If the bounds are not ordered, or when an input lies outside them.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Root:                                   # not defined below zero
    ...     def value_and_gradient(self, points): return np.sqrt(points).sum(-1), 0.5 / np.sqrt(points)
    >>> positive = mk.Truncated(mk.Gaussian(0.3), low=0)
    >>> estimate = mk.Pathwise(positive).estimate(Root(), np.array([0.5]), budget=mk.Evaluations(64), rng=0)
    >>> estimate.provenance["estimand"]
    'mean of the gradient under a truncated kernel'
    """

    kernel: Kernel
    low: ArrayLike = -np.inf
    high: ArrayLike = np.inf

    estimand = "mean of the gradient under a truncated kernel"

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"Truncated: {self.kernel!r} is not a kernel")
        if not (np.asarray(self.low) < np.asarray(self.high)).all():
            raise ValueError(f"Truncated: low={self.low!r} must lie below high={self.high!r}")

    def __repr__(self) -> str:
        return f"Truncated({self.kernel!r}, low={_told(self.low)}, high={_told(self.high)})"

    def widths(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        return self.kernel.widths(inputs)

    def at(self, inputs: NDArray[Any]) -> TruncatedDraws:
        """Return the truncated law around one input.

        Raises
        ------
        ValueError
            If the input lies outside the bounds, or the kernel has no mass between them.
        """
        x = np.asarray(inputs, dtype=np.float64)
        widths = self.widths(inputs)
        moves = widths > 0
        # The widths and the room as the points will see them, in the input's own precision.
        unit = np.where(moves, widths.astype(inputs.dtype), 1.0).astype(np.float64)
        left, right = (bound - x for bound in self._bounds(x.shape))
        outside = (left > 0) | (right < 0)
        if outside.any():
            first = tuple(map(int, np.unravel_index(int(np.argmax(outside)), x.shape)))
            raise ValueError(
                f"{int(outside.sum())} coordinates of the input lie outside {self!r}, the first at index "
                f"{first}; the bounds are in the units of the model's input, after preprocessing"
            )
        room = 1 - _ROOM * float(np.finfo(inputs.dtype).eps)
        low, high = (left / unit * room)[moves], (right / unit * room)[moves]
        below, above = self.kernel.cdf(low), self.kernel.cdf(high)
        if not (above > below).all():
            raise ValueError(
                f"{self!r} has no mass between its bounds at {int((above <= below).sum())} coordinates"
            )
        return TruncatedDraws(self.kernel, low, high, below, above - below)

    def _bounds(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        try:
            low, high = (
                np.broadcast_to(np.asarray(b, dtype=np.float64), shape) for b in (self.low, self.high)
            )
        except ValueError:
            raise ValueError(
                f"Truncated: bounds of shapes {np.shape(self.low)} and {np.shape(self.high)} do not "
                f"broadcast to the input's {shape}"
            ) from None
        return low, high


def _told(bound: ArrayLike) -> str:
    """A number as it is; of an array, which would fill pages, its shape and a checksum."""
    values = np.asarray(bound, dtype=np.float64)
    if values.ndim == 0:
        return f"{float(values):g}"
    return f"<array of shape {values.shape}, crc32 {crc32(np.ascontiguousarray(values).tobytes()):08x}>"


@dataclass(frozen=True, eq=False)
class TruncatedDraws:
    """The truncated law around one input: Q(F(low) + u (F(high) - F(low))) for uniform u."""

    kernel: Kernel
    low: Floats
    high: Floats
    below: Floats
    mass: Floats

    view = Uniforms
    effective_share = 1.0

    def displacements(self, points: PointSet) -> Floats:
        values = points.values
        u = values if isinstance(points, Uniforms) else ndtr(values.astype(np.float64))
        t = self.kernel.inverse_cdf(np.minimum(self.below + u * self.mass, _LAST))
        return np.asarray(np.clip(t, self.low, self.high))

    def weights(self, displacements: Floats) -> None:
        """None: the points have the truncated law itself."""
