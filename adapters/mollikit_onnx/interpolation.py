from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from onnx import TensorProto, helper

from mollikit_onnx.tensor import Tensor

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
    weight, slope : Tensor
        (taps, P); the slope is the derivative of the weight with respect to the point's coordinate.
    """

    index: Tensor
    weight: Tensor
    slope: Tensor


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
        turn = None
        if mode != "cubic" and self.padding != "zeros":
            # Cubic interpolation lets the neighbours, not the place itself, come back from outside.
            u, turn = self._within(u, last)
        base = u.op("Round" if mode == "nearest" else "Floor")
        c3, c2, c1, c0 = (_column(u, row) for row in zip(*polynomials, strict=True))
        signs = _column(u, [1 if offset <= 0 else -1 for offset in offsets])
        distance = (u - base - _column(u, offsets)) * signs
        weight = ((c3 * distance + c2) * distance + c1) * distance + c0
        slope = ((3.0 * c3 * distance + 2.0 * c2) * distance + c1) * signs
        index = base + _column(u, offsets)
        if self.padding == "zeros":
            inside = index.op("GreaterOrEqual", 0.0).op("And", index.op("LessOrEqual", last))
            held = inside.op("Cast", to=u.dtype)
            weight, slope = weight * held, slope * held
        elif mode == "cubic" and self.padding == "reflection":
            index = self._reflected(index)[0]
        index = index.op("Max", 0.0).op("Min", last).op("Cast", to=TensorProto.INT64)
        return Taps(index, weight, slope if turn is None else slope * turn)

    def _within(self, u: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates brought back onto the axis, and their derivative."""
        inner, turn = self._reflected(u) if self.padding == "reflection" else (u, None)
        kept = inner.op("GreaterOrEqual", 0.0).op("And", inner.op("LessOrEqual", last)).op("Cast", to=u.dtype)
        return inner.op("Max", 0.0).op("Min", last), kept if turn is None else kept * turn

    def _reflected(self, u: Tensor) -> tuple[Tensor, Tensor]:
        low, span = (0.0, self.size - 1) if self.corners else (-0.5, self.size)
        length = span.op("Max", 1).op("Cast", to=u.dtype)
        beyond = u - low
        distance = beyond.op("Abs")
        flips = (distance / length).op("Floor")
        odd = flips - 2.0 * (flips * 0.5).op("Floor")
        rest = distance - flips * length
        return rest + odd * (length - 2.0 * rest) + low, beyond.op("Sign") * (1.0 - 2.0 * odd)


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return like.graph.constant(np.array(values, helper.tensor_dtype_to_np_dtype(like.dtype))[:, None])


@dataclass(frozen=True)
class Sampling:
    """P points read from pictures whose elements are rows (pictures * places, channels).

    Attributes
    ----------
    rows : Tensor
        The pictures.
    index : Tensor
        (taps, P): the rows that a point reads.
    weight : Tensor
        (taps, P).
    slopes : list of Tensor
        For each axis (taps, P): the derivatives of the weights.
    """

    rows: Tensor
    index: Tensor
    weight: Tensor
    slopes: list[Tensor]

    @classmethod
    def of(cls, pictures: Tensor, picture: Tensor, axes: Sequence[Axis], taps: Sequence[Taps]) -> Sampling:
        """Read from (pictures, channels, *places) at points of which each is in one ``picture`` (P,)."""
        rank = len(axes)

        def spread(tensor: Tensor, axis: int) -> Tensor:
            # (1, ..., taps, ..., 1, P): one axis of the picture for each leading axis.
            others = [k for k in range(rank) if k != axis]
            return tensor.op("Unsqueeze", others) if others else tensor

        flat = picture
        for axis, (own, along) in enumerate(zip(taps, axes, strict=True)):
            flat = flat * along.size + spread(own.index, axis)
        weights = [spread(own.weight, axis) for axis, own in enumerate(taps)]
        slopes = [spread(own.slope, axis) for axis, own in enumerate(taps)]
        count = picture.dims()

        def merged(factors: Sequence[Tensor]) -> Tensor:
            return reduce(lambda a, b: a * b, factors).reshaped(-1, count)

        turned = [merged([*weights[:k], slopes[k], *weights[k + 1 :]]) for k in range(rank)]
        return cls(as_rows(pictures), merged([flat]), merged(weights), turned)

    def values(self) -> Tensor:
        """What the points read, (P, channels)."""
        weight = self.weight.op("Cast", to=self.rows.dtype).op("Unsqueeze", [2])
        return (self._read() * weight).op("ReduceSum", [0], keepdims=0)

    def of_rows(self, g: Tensor) -> Tensor:
        """Cotangent of the rows for that of the values."""
        zeros = g.graph.scalar(0.0, g.dtype).op("Expand", self.rows.op("Shape"))
        parts = self.weight.op("Cast", to=g.dtype).op("Unsqueeze", [2]) * g
        return zeros.op("ScatterND", self.index.op("Unsqueeze", [2]), parts, reduction="add")

    def of_coordinates(self, g: Tensor) -> list[Tensor]:
        """Cotangents (P,) of the points' coordinates, axis by axis, for that of the values."""
        inner = (self._read() * g).op("ReduceSum", [2], keepdims=0)
        return [
            (inner.op("Cast", to=slope.dtype) * slope).op("ReduceSum", [0], keepdims=0)
            for slope in self.slopes
        ]

    def _read(self) -> Tensor:
        return self.rows.op("Gather", self.index, axis=0)


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
