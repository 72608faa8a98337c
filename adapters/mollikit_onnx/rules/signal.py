from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("DFT", since=17)
def dft(node: Node, g: Tensor) -> Sent:
    """The adjoint of a transform is its inverse times its length; until opset 19 the axis is an attribute."""
    axis = node.input(2) or node.graph.scalar(node.attribute("axis", -2), TensorProto.INT64)
    return [_adjoint(node, g, axis.op("Reshape", [1]))]


def _adjoint(node: Node, g: Tensor, axis: Tensor) -> Tensor:
    x, length = node.x, node.input(1)
    axis = axis.op("Mod", x.rank)
    inverse, half = node.attribute("inverse"), node.attribute("onesided")
    count = x.dims().op("Gather", axis) if length is None else length.op("Reshape", [1])
    if inverse and half and length is None:
        count = (count - 1) * 2
    kept, total = count, count.op("Cast", to=g.dtype)
    if not inverse:
        back = _transform(node, _extended(g, count, axis) if half else g, axis, inverse=1) * total
    else:
        back = _transform(node, g, axis, inverse=0) / total
    if inverse and half:
        # All bins but the first and, of an even length, the last stand for their mirror images too.
        kept = count.op("Div", 2) + 1
        bins = kept.counted()
        mirrored = (bins.op("Equal", 0).op("Or", (bins * 2).op("Equal", count))).op("Not")
        times = mirrored.op("Cast", to=g.dtype) + 1
        axes = node.graph.constant(np.arange(x.rank))
        along = axis.graph.scalar(-1, TensorProto.INT64).where(axes.op("Equal", axis), 1)
        back = back.op("Slice", [0], kept, axis) * times.op("Reshape", along)
    back = back.op("Slice", [0], x.dims(x.rank - 1), [x.rank - 1])
    if length is None and not (inverse and half):
        return back.shaped(x.shape)
    return _extended(back, x.dims().op("Gather", axis), axis, kept).shaped(x.shape)


def _transform(node: Node, x: Tensor, axis: Tensor, *, inverse: int) -> Tensor:
    if node.graph.opsets[""] < 20:
        own = 2 if node.proto.op_type == "STFT" else node.attribute("axis")
        return x.op("DFT", axis=own, inverse=inverse)
    return x.op("DFT", None, axis.op("Squeeze", [0]), inverse=inverse)


def _extended(x: Tensor, size: Tensor, axis: Tensor, before: Tensor | None = None) -> Tensor:
    """Put zeros behind x, or cut it, so that an axis has the given size."""
    before = x.op("Shape").op("Gather", axis) if before is None else before
    return x.op("Pad", x.graph.joined(0, size - before), None, axis)


@rule("STFT")
def stft(node: Node, g: Tensor) -> Sent:
    """Frames of the signal, times the window, transformed: in reverse order, what overlaps adds up."""
    signal, step = node.inputs[:2]
    # onnxruntime takes real signals without their last axis too, and models have them so.
    bare = signal.rank == 2
    if bare:
        signal = signal.op("Unsqueeze", [2])
    window, length = node.input(2), node.input(3)
    size = length.op("Reshape", [1]) if length is not None else node.inputs[2].dims(0, 1)
    axis = node.graph.operand([2], TensorProto.INT64)
    whole = _extended(g, size, axis) if node.attribute("onesided") else g
    back = _transform(node, whole, axis, inverse=1) * size.op("Cast", to=g.dtype)
    back = back.op("Slice", [0], signal.dims(2), [3])
    starts = (g.dims(1, 2).counted() * step.op("Cast", to=TensorProto.INT64)).op("Unsqueeze", [1])
    places = starts + size.counted()
    sent: Sent = [None] * len(node.inputs)
    if window is not None:
        read = signal.op("Gather", places, axis=1)
        sent[2] = (read * back).op("ReduceSum", [0, 1, 3], keepdims=0).shaped(window.shape)
        back = back * window.op("Unsqueeze", [1])
    zeros = g.graph.scalar(0.0, g.dtype).op("Expand", signal.dims().op("Gather", [1, 0, 2]))
    frames = back.op("Transpose", perm=[1, 2, 0, 3])
    summed = zeros.op("ScatterND", places.op("Unsqueeze", [2]), frames, reduction="add")
    added = summed.op("Transpose", perm=[1, 0, 2]).shaped(signal.shape)
    sent[0] = added.op("Squeeze", [2]) if bare else added
    return sent
