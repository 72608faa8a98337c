from __future__ import annotations

from mollikit_onnx.node import Node
from mollikit_onnx.registry import rule
from mollikit_onnx.tensor import Tensor

Sent = list[Tensor | None]


def kept(node: Node, reduced: Tensor) -> Tensor:
    """Give a tensor of the reduction's output shape the reduced axes back, with size 1."""
    x, axes = node.x, node.input(1)
    if node.attribute("keepdims"):
        return reduced
    if axes is not None and axes.value is not None and axes.value.size:
        return reduced.op("Unsqueeze", axes)
    if node.attribute("noop_with_empty_axes") and (axes is None or axes.value is not None):
        return reduced
    if axes is None or axes.value is not None:
        return reduced.op("Reshape", [1] * x.rank)
    # The axes are computed: the shape is that of the same reduction with the axes kept.
    like = x.op(
        node.proto.op_type, axes, keepdims=1, noop_with_empty_axes=node.attribute("noop_with_empty_axes")
    )
    return reduced.op("Reshape", like.dims(), allowzero=1)


@rule("ReduceSum", since=13)
def reduce_sum(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1."""
    return [kept(node, g).expanded_like(node.x)]


@rule("ReduceMean", since=18)
def reduce_mean(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / count."""
    return [(kept(node, g) * averaging(node.x, node.y)).expanded_like(node.x)]


def averaging(x: Tensor, y: Tensor) -> Tensor | float:
    """One over the number of elements of x that go into one of y."""
    if x.shape is not None and y.shape is not None:
        # A symbolic size that both have, such as the batch, cancels.
        of_x, of_y = [n for n in x.shape if n != 1], [n for n in y.shape if n != 1]
        for size in [n for n in of_y if n is not None and n in of_x]:
            of_x.remove(size)
            of_y.remove(size)
        if not of_y and all(isinstance(n, int) for n in of_x):
            count = 1
            for n in of_x:
                count *= int(n or 0)
            return 1 / count
    return y.op("Size").op("Cast", to=x.dtype) / x.op("Size").op("Cast", to=x.dtype)


@rule("ReduceMax", "ReduceMin", since=18)
def reduce_extremum(node: Node, g: Tensor) -> Sent:
    """Elements that equal y share its cotangent."""
    axes = node.input(1)
    chosen = node.x.op("Equal", kept(node, node.y)).op("Cast", to=g.dtype)
    count = chosen.op(
        "ReduceSum", axes, keepdims=1, noop_with_empty_axes=node.attribute("noop_with_empty_axes")
    )
    return [chosen * (kept(node, g) / count)]
