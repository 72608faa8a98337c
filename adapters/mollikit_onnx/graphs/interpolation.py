from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from onnx import TensorProto

from mollikit_onnx.graphs.tensor import Tensor

# Weight of a neighbour as a cubic polynomial (highest power first) of its distance, and the neighbours'
# offsets from the place rounded down. Keys, "Cubic convolution interpolation for digital image
# processing", IEEE Trans. ASSP 29, 1981, with a = -3/4.
_LINEAR = ((0, 1), ((0, 0, -1, 1), (0, 0, -1, 1)))
_OUTER, _INNER = (-0.75, 3.75, -6.0, 3.0), (1.25, -2.25, 0.0, 1.0)
_CUBIC = ((-1, 0, 1, 2), (_OUTER, _INNER, _INNER, _OUTER))
_NEAREST = ((0,), ((0, 0, 0, 1),))
_MODES = {"linear": _LINEAR, "cubic": _CUBIC, "nearest": _NEAREST}


@dataclass(frozen=True)
class Taps:
    """Neighbours of P points along one axis.

    Attributes
    ----------
    index : Tensor
        (taps, P), int64.
    weight : Tensor
        (taps, P).
    count : int
        Number of taps.
    """

    index: Tensor
    weight: Tensor
    count: int


@dataclass(frozen=True)
class Axis:
    """An axis whose elements lie at 0, 1, ..., and what lies beyond its ends.

    Attributes
    ----------
    size : Tensor
        An int64 vector of one number.
    padding : str
        "zeros", "border" or "reflection".
    corners : bool
        Whether the axis ends at the centres of its last elements, else half an element further on.
    """

    size: Tensor
    padding: str
    corners: bool

    def taps(self, u: Tensor, mode: str) -> Taps:
        """Neighbours of the coordinates u (P,) for mode "nearest", "linear" or "cubic"."""
        offsets, polynomials = _MODES[mode]
        last = (self.size - 1).op("Cast", to=u.dtype)
        if mode != "cubic" and self.padding != "zeros":
            # Cubic interpolation lets the neighbours, not the place itself, come back from outside.
            u = (self._reflected(u) if self.padding == "reflection" else u).op("Max", 0.0).op("Min", last)
        base = u.op("Round" if mode == "nearest" else "Floor")
        c3, c2, c1, c0 = (_column(u, row) for row in zip(*polynomials, strict=True))
        signs = _column(u, [1 if offset <= 0 else -1 for offset in offsets])
        distance = (u - base - _column(u, offsets)) * signs
        weight = ((c3 * distance + c2) * distance + c1) * distance + c0
        index = base + _column(u, offsets)
        if self.padding == "zeros":
            inside = index.op("GreaterOrEqual", 0.0).op("And", index.op("LessOrEqual", last))
            weight = weight * inside.op("Cast", to=u.dtype)
        elif mode == "cubic" and self.padding == "reflection":
            index = self._reflected(index)
        index = index.op("Max", 0.0).op("Min", last).op("Cast", to=TensorProto.INT64)
        return Taps(index, weight, len(offsets))

    def _reflected(self, u: Tensor) -> Tensor:
        low, span = (0.0, self.size - 1) if self.corners else (-0.5, self.size)
        length = span.op("Max", 1).op("Cast", to=u.dtype)
        distance = (u - low).op("Abs")
        flips = (distance / length).op("Floor")
        odd = flips - 2.0 * (flips * 0.5).op("Floor")
        rest = distance - flips * length
        return rest + odd * (length - 2.0 * rest) + low


def _column(x: Tensor, values: Sequence[float]) -> Tensor:
    return x.like([[value] for value in values])


def sampled(pictures: Tensor, picture: Tensor, axes: Sequence[Axis], taps: Sequence[Taps]) -> Tensor:
    """Read (P, channels) from (pictures, channels, *places) at points, each in one ``picture`` (P,).

    P has a name of its own wherever it stands, so that what is made of it is known to be alike.
    """
    count, points = picture.dims(), picture.shape or (None,)

    def spread(tensor: Tensor, axis: int) -> Tensor:
        # (1, ..., taps, ..., 1, P): one axis of the picture for each leading axis.
        others = [k for k in range(len(axes)) if k != axis]
        return tensor.op("Unsqueeze", others) if others else tensor

    index = picture
    for k, (own, along) in enumerate(zip(taps, axes, strict=True)):
        index = index * along.size + spread(own.index, k)
    weight = reduce(lambda a, b: a * b, (spread(own.weight, k) for k, own in enumerate(taps)))
    total = math.prod(own.count for own in taps)
    index, weight = (x.reshaped(-1, count).shaped((total, *points)) for x in (index, weight))
    read = as_rows(pictures).op("Gather", index, axis=0)
    weight = weight.op("Cast", to=read.dtype).op("Unsqueeze", [2])
    return (read * weight).op("ReduceSum", [0], keepdims=0)


def as_rows(x: Tensor) -> Tensor:
    """(batch, channels, *places) as (batch * places, channels)."""
    return x.op("Transpose", perm=[0, *range(2, x.rank), 1]).reshaped(-1, x.dims(1, 2))


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_rows`, for a tensor of the shape of ``like``."""
    order = [0, *range(2, like.rank), 1]
    shape = like.dims().op("Gather", order)
    back = [order.index(axis) for axis in range(like.rank)]
    return rows.op("Reshape", shape).op("Transpose", perm=back).shaped(like.shape)


def owners(groups: Tensor, each: Tensor) -> Tensor:
    """0, ..., 0, 1, ..., 1, ...: for each of ``groups`` things its number, ``each`` times."""
    return (groups * each).counted().op("Div", each)
