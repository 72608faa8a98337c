from __future__ import annotations

import numpy as np

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.origins import moved_back


@rule("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def reshaped(node: Node, g: Tensor) -> Sent:
    """The same elements in the input's shape."""
    return [g.reshaped_like(node.x)]


@rule("Expand")
def expand(node: Node, g: Tensor) -> Sent:
    """The adjoint of a copy is a sum."""
    return [g.summed_to(node.x)]


@rule("Transpose")
def transpose(node: Node, g: Tensor) -> Sent:
    """The inverse permutation."""
    perm = node.attribute("perm") or list(reversed(range(node.x.rank)))
    return [g.op("Transpose", perm=[int(axis) for axis in np.argsort(perm)])]


@rule("Concat")
def concat(node: Node, g: Tensor) -> Sent:
    """Each input has its part."""
    axis = node.attribute("axis")
    if axis < 0:
        axis %= node.x.rank
    sizes = [x.dims(axis, axis + 1) for x in node.inputs]
    known = [size.value for size in sizes]
    if all(value is not None for value in known):
        split = g.graph.constant(np.concatenate([value for value in known if value is not None]))
    else:
        split = g.graph.op("Concat", *sizes, axis=0)
    return list(g.graph.ops(len(sizes), "Split", g, split, axis=axis))


@rule("Split")
def split(node: Node, *cotangents: Tensor) -> Sent:
    """The parts, joined."""
    return [node.graph.op("Concat", *cotangents, axis=node.attribute("axis"))]


@rule("Pad", since=13)
def pad(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """Negative pads crop, so the adjoint is the Pad by the opposite amounts."""
    if node.attribute("mode") != "constant":
        return [moved_back(node, g)]
    amounts, axes = node.inputs[1], node.input(3)
    sent: Sent = [g.op("Pad", amounts.op("Neg"), None, axes).shaped(node.x.shape), None, None]
    if len(node.wanted) > 2 and node.wanted[2]:
        added = node.x.zeros().op("Pad", amounts, g.graph.scalar(1.0, g.dtype), axes)
        sent[2] = (g * added).op("ReduceSum", keepdims=0).reshaped_like(node.inputs[2])
    return sent


@rule("Slice", since=10)
def slice_(node: Node, g: Tensor) -> Sent:
    """What was cut off has no cotangent: zeros."""
    x, starts = node.inputs[:2]
    axes, steps = node.input(3), node.input(4)
    if steps is not None and (steps.value is None or (steps.value != 1).any()):
        return [moved_back(node, g)]
    if axes is None:
        axes = starts.op("Size").counted()
    size, left = x.dims().op("Gather", axes), node.y.dims().op("Gather", axes)
    starts, axes = starts.op("Cast", to=size.dtype), axes.op("Cast", to=size.dtype)
    begin = (starts + size).where(starts.op("Less", 0), starts).op("Max", 0).op("Min", size)
    return [g.op("Pad", begin.op("Concat", size - begin - left, axis=0), None, axes)]


@rule("Tile", since=6)
def tile(node: Node, g: Tensor) -> Sent:
    """The adjoint of copies is a sum: over the first of the two axes, copies and size, that an axis was."""
    x, repeats = node.inputs
    pairs = repeats.op("Unsqueeze", [1]).op("Concat", x.dims().op("Unsqueeze", [1]), axis=1)
    apart = g.op("Reshape", pairs.op("Reshape", [-1]), allowzero=1)
    axes = list(range(0, 2 * x.rank, 2))
    return [apart.op("ReduceSum", axes, keepdims=0).shaped(x.shape) if axes else g]


@rule("Trilu")
def trilu(node: Node, g: Tensor) -> Sent:
    """The same triangle of g."""
    return [g.op("Trilu", node.input(1), upper=node.attribute("upper"))]
