from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import helper

from mollikit_onnx.graphs.windows import Windows
from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.origins import added_up, returned
from mollikit_onnx.rules.reduction import averaging


@rule("GlobalAveragePool")
def global_average_pool(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / count."""
    return [(g * averaging(node.x, node.y)).expanded_like(node.x)]


@rule("GlobalMaxPool")
def global_max_pool(node: Node, g: Tensor) -> Sent:
    """The largest elements of a channel share its cotangent."""
    chosen = node.x.op("Equal", node.y).op("Cast", to=g.dtype)
    return [chosen * (g / chosen.op("ReduceSum", list(range(2, node.x.rank)), keepdims=1))]


@rule("AveragePool")
def average_pool(node: Node, g: Tensor) -> Sent:
    """The adjoint of the sums over windows, over the count of each window."""
    windows = Windows.of(node)
    return [_spread(node, windows, (g / _counts(node, windows, g)).shaped(node.y.shape))]


@rule("LpPool", since=2)
def lp_pool(node: Node, g: Tensor) -> Sent:
    """y^p is the sum of |x|^p over a window, so dy/dx = sign(x) |x|^(p-1) / y^(p-1)."""
    power = _Power(node)
    return [power.slope() * _spread(node, Windows.of(node), power.over(g))]


@rule("GlobalLpPool", since=2)
def global_lp_pool(node: Node, g: Tensor) -> Sent:
    """As LpPool, the window being the channel."""
    power = _Power(node)
    return [(power.slope() * power.over(g)).shaped(node.x.shape)]


@dataclass(frozen=True)
class _Power:
    """The two factors of sign(x) |x|^(p-1) / y^(p-1), the derivative of a p-norm y; 0 where y is."""

    node: Node

    def slope(self) -> Tensor:
        x, p = self.node.x, self.node.attribute("p")
        if p == 1:
            return x.op("Sign")
        return x if p == 2 else x * x.op("Abs").op("Pow", float(p - 2))

    def over(self, g: Tensor) -> Tensor:
        y, p = self.node.y, self.node.attribute("p")
        if p == 1:
            return g
        return (g / (y if p == 2 else y.op("Pow", float(p - 1)))).where(y.op("Greater", 0.0)).shaped(y.shape)


def _spread(node: Node, windows: Windows, g: Tensor) -> Tensor:
    """Adjoint of the sums over windows: that of a depthwise convolution with ones."""
    channels = node.x.shape[1] if node.x.shape is not None else None
    if not isinstance(channels, int):
        # Channels are summed each by itself, so they may as well be examples.
        x, one = node.x, g.graph.scalar(1.0, g.dtype).op("Expand", [1, 1, *windows.kernel])
        alone, windowed = (t.reshaped(-1, 1, like.dims(2)) for t, like in ((x, x), (g, node.y)))
        return windows.adjoint(windowed, one, alone, 1).reshaped_like(x)
    if _tile_exactly(node, windows):
        return _repeated(g, windows, node.x)
    ones = g.graph.scalar(1.0, g.dtype).op("Expand", [channels, 1, *windows.kernel])
    return windows.adjoint(g, ones, node.x, channels)


def _tile_exactly(node: Node, windows: Windows) -> bool:
    """Whether every element of the input is known to lie in exactly one window."""
    sizes = node.x.shape[2:] if node.x.shape is not None else (None,)
    return (
        windows.kernel == windows.strides == windows.reach
        and not windows.padded
        and all(isinstance(n, int) and n % k == 0 for n, k in zip(sizes, windows.kernel, strict=True))
    )


def _repeated(pooled: Tensor, windows: Windows, x: Tensor) -> Tensor:
    """Give every element of x what its window has."""
    return pooled.op(
        "Resize",
        None,
        np.array([1, 1, *windows.kernel], np.float32),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ).shaped(x.shape)


def _counts(node: Node, windows: Windows, g: Tensor) -> Tensor | float:
    """Number of elements that each window averages over."""
    inclusive, ceil = node.attribute("count_include_pad"), node.attribute("ceil_mode")
    if not ceil and (inclusive or not windows.padded):
        return float(math.prod(windows.kernel))
    pads = [b + e for b, e in zip(windows.begin, windows.end, strict=True)]
    sizes = node.x.dims(2).op("Add", pads) if inclusive else node.x.dims(2)
    ones = g.graph.scalar(1.0, g.dtype)
    counted = ones.op("Expand", g.graph.operand([1, 1], g.dtype).op("Concat", sizes, axis=0))
    begin, end = ([0] * len(pads), [0] * len(pads)) if inclusive else (windows.begin, windows.end)
    # With ceil_mode the last window may reach less than a stride beyond the pads.
    beyond = [e + (stride - 1) * ceil for e, stride in zip(end, windows.strides, strict=True)]
    counts = counted.op(
        "Conv",
        ones.op("Expand", [1, 1, *windows.kernel]),
        strides=windows.strides,
        dilations=windows.dilations,
        pads=[*begin, *beyond],
    )
    axes = list(range(2, 2 + len(pads)))
    return counts.op("Slice", [0] * len(axes), node.y.dims(2), axes)


@rule("MaxPool")
def max_pool(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """The largest element of a window has its cotangent; equal ones have shares of it, or the first all."""
    x, windows = node.x, Windows.of(node)
    if _tile_exactly(node, windows):
        # onnxruntime runs this in half the time that it needs to find the indices and scatter to them.
        chosen = x.op("Equal", _repeated(node.y, windows, x)).op("Cast", to=g.dtype)
        part = chosen.op("AveragePool", kernel_shape=windows.kernel, strides=windows.strides)
        return [chosen * _repeated(g / (part * math.prod(windows.kernel)), windows, x)]
    return [added_up(g, _row_major_indices(node), x)]


def _row_major_indices(node: Node) -> Tensor:
    if not node.attribute("storage_order"):
        return node.output(1)
    kept = {a.name: helper.get_attribute_value(a) for a in node.proto.attribute if a.name != "storage_order"}
    return node.graph.ops(2, "MaxPool", node.x, **kept)[1]


@rule("MaxUnpool")
def max_unpool(node: Node, g: Tensor) -> Sent:
    """Each element has the cotangent of its place; where two were put to one, the one that is seen."""
    return [returned(node, g)]
