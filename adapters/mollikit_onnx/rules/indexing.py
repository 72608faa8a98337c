from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.graphs.tensor import FLOATS, Tensor
from mollikit_onnx.rules import Node, Sent, rule
from mollikit_onnx.rules.origins import moved_back


@rule("Gather")
def gather(node: Node, g: Tensor) -> Sent:
    """Cotangents add up at the slices that they were read from."""
    x, indices = node.inputs
    axis = node.attribute("axis") % x.rank
    one = indices.rank == 0 and indices.value is not None
    if indices.dtype == TensorProto.INT32:
        indices = indices.op("Cast", to=TensorProto.INT64)
    if one:
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


@rule("GatherElements")
def gather_elements(node: Node, g: Tensor) -> Sent:
    """Cotangents add up at the elements that they were read from."""
    x, indices = node.inputs
    return [x.zeros().op("ScatterElements", indices, g, axis=node.attribute("axis"), reduction="add")]


@rule("GatherND")
def gather_nd(node: Node, g: Tensor) -> Sent:
    """Cotangents add up at the slices that they were read from."""
    if node.attribute("batch_dims"):
        return [moved_back(node, g)]
    return [node.x.zeros().op("ScatterND", node.inputs[1], g, reduction="add")]


@rule("TopK", since=11)
def top_k(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """The elements that were chosen have their cotangents; of equal ones, those that onnxruntime chose."""
    axis = node.attribute("axis")
    return [node.x.zeros().op("ScatterElements", node.output(1), g, axis=axis)]


@rule("Compress")
@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def compress(node: Node, g: Tensor) -> Sent:
    """The elements that were kept have their cotangents."""
    return [moved_back(node, g)]


@rule("Unique", since=11)
def unique(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """Of elements that are equal the first has the cotangent."""
    x, axis = node.x, node.attribute("axis")
    first = node.output(1, shape=(None,)).op("Unsqueeze", [-1])
    if axis is None:
        flat = x.zeros().op("Reshape", [-1]).op("ScatterND", first, g)
        return [flat.op("Reshape", x.dims(), allowzero=1).shaped(x.shape)]
    order = [axis % x.rank, *(k for k in range(x.rank) if k != axis % x.rank)]
    back = [order.index(k) for k in range(x.rank)]
    zeros = x.zeros().op("Transpose", perm=order)
    return [zeros.op("ScatterND", first, g.op("Transpose", perm=order)).op("Transpose", perm=back)]


@rule("OneHot", since=9)
def one_hot(node: Node, g: Tensor) -> Sent:
    """The two values, for elsewhere and for the indices, have the cotangents of their places.

    Indices and depth, which may be floats, only ever make steps.
    """
    indices, depth, _ = node.inputs
    sides = [g * indices.op("OneHot", depth, g.like(pair), axis=node.attribute("axis")) for pair in np.eye(2)]
    sums = [side.op("ReduceSum", keepdims=0).op("Unsqueeze", [0]) for side in sides]
    steps = [x.zeros() if x.dtype in FLOATS else None for x in (indices, depth)]
    return [*steps, sums[0].op("Concat", sums[1], axis=0)]


@rule("ReverseSequence")
def reverse_sequence(node: Node, g: Tensor) -> Sent:
    """A reversal is its own inverse."""
    return [node.again(g)]
