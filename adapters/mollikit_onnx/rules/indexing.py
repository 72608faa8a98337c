from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.node import Node
from mollikit_onnx.registry import rule
from mollikit_onnx.tensor import Tensor

Sent = list[Tensor | None]


def moved_back(node: Node, g: Tensor) -> Tensor:
    """Cotangent of the first input of an operator that only moves its elements about.

    The same operator moves the elements' own numbers; g is then added up where they say.
    """
    x = node.x
    count = x.op("Size")
    numbers = node.graph.op("Range", _integer(node, 0), count, _integer(node, 1))
    numbers = numbers.op("Reshape", x.dims(), allowzero=1)
    origin = node.again(numbers).op("Reshape", [-1])
    zeros = g.graph.scalar(0.0, g.dtype).op("Expand", count.op("Unsqueeze", [0]))
    flat = zeros.op("ScatterElements", origin, g.op("Reshape", [-1]), axis=0, reduction="add")
    return flat.op("Reshape", x.dims(), allowzero=1).shaped(x.shape)


def _integer(node: Node, value: int) -> Tensor:
    return node.graph.scalar(value, TensorProto.INT64)


@rule("Gather")
def gather(node: Node, g: Tensor) -> Sent:
    """Cotangents add up at the slices that they were read from."""
    x, indices = node.inputs
    axis = node.attribute("axis") % x.rank
    if indices.rank == 0 and indices.value is not None:
        # One slice: the others are zero.
        index = indices.op("Unsqueeze", [0])
        size = x.dims(axis, axis + 1)
        begin = (index + size).where(index.op("Less", 0), index)
        pads = begin.op("Concat", size - begin - 1, axis=0)
        return [g.op("Unsqueeze", [axis]).op("Pad", pads, None, [axis])]
    # The gathered axis comes first, where ScatterND adds whole slices.
    front = [*range(axis, axis + indices.rank), *range(axis), *range(axis + indices.rank, node.y.rank)]
    order = [axis, *(k for k in range(x.rank) if k != axis)]
    back = [order.index(k) for k in range(x.rank)]
    shape = x.dims().op("Gather", order)
    zeros = g.graph.scalar(0.0, g.dtype).op("Expand", shape)
    slices = g.op("Transpose", perm=front) if axis else g
    summed = zeros.op("ScatterND", indices.op("Unsqueeze", [-1]), slices, reduction="add")
    return [(summed.op("Transpose", perm=back) if axis else summed).shaped(x.shape)]


@rule("GatherElements", "GatherND")
def gathered(node: Node, g: Tensor) -> Sent:
    """Cotangents add up at the elements that they were read from."""
    return [moved_back(node, g)]
