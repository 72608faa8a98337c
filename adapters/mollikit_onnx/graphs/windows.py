from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.tensor import Dimension, Tensor

_LAST, _FIRST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
# Beyond that width a product that spreads rows costs more than a transposed convolution.
_WIDEST = 64


@dataclass(frozen=True)
class Windows:
    """Windows that slide over the spatial axes of a tensor (batch, channels, *spatial).

    Attributes
    ----------
    kernel, strides, dilations, begin, end : tuple of int
        One number for each spatial axis; ``begin`` and ``end`` are the pads.
    ceil : bool
        Whether the last window may reach beyond the pads.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    ceil: bool = False

    @classmethod
    def written(cls, node: Node) -> Windows:
        """Read the windows of a convolution or pooling node as they are written, auto_pad left aside."""
        weight = node.input(1)
        sizes = node.attribute("kernel_shape") or (weight.shape[2:] if weight and weight.shape else [None])
        kernel = tuple(size for size in sizes if isinstance(size, int))
        if len(kernel) != len(sizes):
            node.refuse("the size of its kernel is not known")
        rank = len(kernel)
        strides = node.attribute("strides") or [1] * rank
        dilations = node.attribute("dilations") or [1] * rank
        pads = node.attribute("pads") or [0] * (2 * rank)
        begin, end = tuple(pads[:rank]), tuple(pads[rank:])
        return cls(kernel, tuple(strides), tuple(dilations), begin, end, bool(node.attribute("ceil_mode")))

    @classmethod
    def of(cls, node: Node) -> Windows:
        """Read the windows of a convolution or pooling node; auto_pad is made explicit."""
        explicit = cls.written(node)
        rank = len(explicit.kernel)
        auto = node.attribute("auto_pad")
        if auto == "NOTSET":
            return explicit
        if auto == "VALID":
            return explicit.padded_by([0] * rank, upper=True)
        return explicit._same(node, upper=auto == "SAME_UPPER")

    def _same(self, node: Node, *, upper: bool) -> Windows:
        totals = []
        for axis, (stride, reach) in enumerate(zip(self.strides, self.reach, strict=True), start=2):
            size = node.x.shape[axis] if node.x.shape is not None else None
            if stride == 1:
                total = reach - 1
            elif isinstance(size, int):
                total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            else:
                node.refuse(f"auto_pad with a stride needs the size of axis {axis}, which is not known")
            totals.append(total)
        return self.padded_by(totals, upper=upper)

    def padded_by(self, totals: Sequence[int], *, upper: bool) -> Windows:
        """The same windows over an input with that many zeros around; of an odd number, the last is above."""
        begin = tuple(total // 2 if upper else total - total // 2 for total in totals)
        end = tuple(total - first for total, first in zip(totals, begin, strict=True))
        return replace(self, begin=begin, end=end)

    @property
    def reach(self) -> tuple[int, ...]:
        """Extent of a window along each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padded(self) -> bool:
        """Whether there are pads."""
        return any(self.begin) or any(self.end)

    def adjoint(self, g: Tensor, weight: Tensor, x: Tensor, group: int) -> Tensor:
        """Adjoint of the convolution with ``weight`` (out, in / group, *kernel) over these windows.

        Parameters
        ----------
        g : Tensor
            Cotangent of the convolution's output.
        weight : Tensor
            Its weights.
        x : Tensor
            Its input, whose shape the result has.
        group : int
            Its groups.
        """
        flat = all(stride == 1 for stride in self.strides)
        depthwise = group > 1 and weight.shape is not None and weight.shape[:2] == (group, 1)
        # Of the ways to do a strided depthwise one, onnxruntime runs the spread several times faster.
        widened = self._convolved if flat or depthwise else self._transposed
        return widened(g, weight, x, group).shaped(x.shape)

    def _convolved(self, g: Tensor, weight: Tensor, x: Tensor, group: int) -> Tensor:
        """Convolve with the flipped kernel, after zeros were put between the elements of g for a stride."""
        begin = [reach - 1 - pad for reach, pad in zip(self.reach, self.begin, strict=True)]
        end, extra = [], []
        for n, m, stride, reach, first, pad in self._axes(g, x, begin):
            known = isinstance(n, int) and isinstance(m, int)
            extra.append(0 if known else stride - 1)
            if known:
                end.append(n - (m - 1) * stride - 1 - first + reach - 1)
            else:
                end.append(reach - 1 - (0 if self.ceil and stride > 1 else pad))
        rank = len(self.kernel)
        sizes = [n for n in (*_spatial(g, rank), *_spatial(x, rank)) if isinstance(n, int)]
        if all(stride == 1 for stride in self.strides):
            spread = g
        elif rank == 2 and len(sizes) == 4 and sizes[1] <= _WIDEST:
            spread = self._spread(g, group, *sizes[:2])
            end = [pad + 1 - stride for pad, stride in zip(end, self.strides, strict=True)]
        else:
            one = g.graph.scalar(1.0, g.dtype).op("Expand", [group, 1, *(1 for _ in self.kernel)])
            # Of what the strides may have left over, as much as the input has.
            kept = [b + e - r + 1 for b, e, r in zip(self.begin, self.end, self.reach, strict=True)]
            spread = g.op("ConvTranspose", one, group=group, strides=self.strides, output_padding=extra)
            spread = spread if self.ceil else self._cut(spread, g, x, kept)
        if min(begin + end) < 0:
            # A pad beyond the kernel's reach makes outputs that see nothing of the input.
            stops = [min(pad, 0) or _LAST for pad in end]
            spread = spread.op(
                "Slice", [max(-pad, 0) for pad in begin], stops, list(range(2, 2 + len(begin)))
            )
            begin, end = [max(pad, 0) for pad in begin], [max(pad, 0) for pad in end]
        flipped = self._flipped(_swapped(weight, group))
        back = spread.op("Conv", flipped, group=group, dilations=self.dilations, pads=[*begin, *end])
        return self._cut(back, g, x, [0] * len(begin)) if self.ceil else back

    def _spread(self, g: Tensor, channels: int, height: int, width: int) -> Tensor:
        """Put zeros behind the elements of each row, and rows of zeros behind each row, by one product."""
        down, along = self.strides
        places = np.zeros((width, down, width, along))
        places[range(width), 0, range(width), 0] = 1
        rows = g.reshaped(-1, width).op("MatMul", g.like(places.reshape(width, -1)))
        return rows.reshaped(-1, channels, down * height, along * width)

    def _flipped(self, weight: Tensor) -> Tensor:
        axes = [axis for axis, size in enumerate(self.kernel, start=2) if size > 1]
        ones = [-1] * len(axes)
        return weight.op("Slice", ones, [_FIRST] * len(axes), axes, ones) if axes else weight

    def _transposed(self, g: Tensor, weight: Tensor, x: Tensor, group: int) -> Tensor:
        # Equal pads at both ends, and the rest is cut: onnxruntime has no other kernel on CUDA.
        equal = [min(pads) for pads in zip(self.begin, self.end, strict=True)]
        ahead = [first - pad for first, pad in zip(self.begin, equal, strict=True)]
        extra, stops = [], {}
        for axis, (n, m, stride, reach, pad, _) in enumerate(self._axes(g, x, equal)):
            known = isinstance(n, int) and isinstance(m, int)
            # The input ends less than a stride behind the last window, or somewhere inside of it.
            beyond = n + ahead[axis] - ((m - 1) * stride + reach - 2 * pad) if known else stride - 1
            extra.append(max(beyond, 0))
            if ahead[axis] or not known or beyond < 0:
                stops[axis] = n + ahead[axis] if known else None
        widened = g.op(
            "ConvTranspose",
            weight,
            group=group,
            strides=self.strides,
            dilations=self.dilations,
            pads=[*equal, *equal],
            output_padding=extra,
        )
        if not stops:
            return widened
        axes, begins = [2 + axis for axis in stops], [ahead[axis] for axis in stops]
        ends = (
            list(stops.values())
            if None not in stops.values()
            else x.dims().op("Gather", axes).op("Add", begins)
        )
        return widened.op("Slice", begins, ends, axes)

    def _axes(self, g: Tensor, x: Tensor, begin: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Sizes of x and g, stride, reach, the pad given and the end pad, axis by axis."""
        rank = len(self.kernel)
        return zip(
            _spatial(x, rank), _spatial(g, rank), self.strides, self.reach, begin, self.end, strict=True
        )

    def _cut(self, widened: Tensor, g: Tensor, x: Tensor, more: Sequence[int]) -> Tensor:
        """Cut the axes to the input's sizes, and more, where these were not known beforehand."""
        rank = len(self.kernel)
        sizes = zip(_spatial(x, rank), _spatial(g, rank), strict=True)
        axes = [
            k for k, (n, m) in enumerate(sizes, start=2) if not (isinstance(n, int) and isinstance(m, int))
        ]
        if not axes or all(stride == 1 for stride in self.strides):
            return widened
        stops = x.dims().op("Gather", axes).op("Add", [more[axis - 2] for axis in axes])
        return widened.op("Slice", [0] * len(axes), stops, axes)

    def weight_gradient(self, g: Tensor, x: Tensor, weight: Tensor, group: int) -> Tensor:
        """Cotangent of the weights: a convolution of the input with g, batch and channels exchanged."""
        swap = [1, 0, *range(2, 2 + len(self.kernel))]
        if group == 1:
            exchanged = x.op("Transpose", perm=swap)
        else:
            # (batch, group * c, ...) to (c, group * batch, ...): each group meets its own channels.
            count = [weight.shape[1]] if weight.shape is not None else [None]
            sizes = x.dims(0, 1).op("Concat", [group], count, x.dims(2), axis=0)
            parted = x.op("Reshape", sizes).op("Transpose", perm=[2, 1, 0, *range(3, 3 + len(self.kernel))])
            merged = x.graph.operand(count, x.dtype).op("Concat", [-1], x.dims(2), axis=0)
            exchanged = parted.op("Reshape", merged)
        windows = exchanged.op(
            "Conv",
            g.op("Transpose", perm=swap),
            group=group,
            strides=self.dilations,
            dilations=self.strides,
            pads=[*self.begin, *self.end],
        )
        # Where a stride leaves a rest of the input out, there are a few windows too many.
        axes = list(range(2, 2 + len(self.kernel)))
        cut = windows.op("Slice", [0] * len(axes), list(self.kernel), axes)
        return cut.op("Transpose", perm=swap).shaped(weight.shape)


def _swapped(weight: Tensor, group: int) -> Tensor:
    """Weights (group * m, c, *kernel) as (group * c, m, *kernel)."""
    if weight.shape is None or not all(isinstance(size, int) for size in weight.shape):
        raise ModelError(f"the shape of the weights {weight.name!r} is not known; declare it in the model")
    out, per_group, *kernel = (int(size) for size in weight.shape if isinstance(size, int))
    if per_group == 1 and out == group:
        return weight
    rest = list(range(2, 2 + len(kernel)))
    if group == 1:
        return weight.op("Transpose", perm=[1, 0, *rest])
    parted = weight.op("Reshape", [group, out // group, per_group, *kernel])
    turned = parted.op("Transpose", perm=[0, 2, 1, *(axis + 1 for axis in rest)])
    return turned.op("Reshape", [group * per_group, out // group, *kernel])


def _spatial(x: Tensor, rank: int) -> tuple[Dimension, ...]:
    return x.shape[2:] if x.shape is not None else (None,) * rank
