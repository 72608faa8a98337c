from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.accumulation import back, in_place
from mollikit_onnx.graphs.interpolation import Axis, owners, sampled
from mollikit_onnx.graphs.windows import Windows
from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("DeformConv")
def deform_conv(node: Node, g: Tensor) -> Sent:
    """A convolution of what is read, times the mask, at the displaced places of the kernel."""
    x, weight, offset = node.inputs[:3]
    if x.rank != 4:
        node.refuse("it is covered for pictures of two dimensions alone, as by runtimes")
    if weight.sizes is None:
        node.refuse("the shape of its weights is not known; declare it in the model")
    shared, group, mask = node.attribute("offset_group"), node.attribute("group"), node.input(4)
    outputs, per_group, *kernel = weight.sizes
    taps, channels = kernel[0] * kernel[1], per_group * group // shared
    places = offset.dims(2, 3) * offset.dims(3, 4)

    before = len(node.graph.nodes)
    # A point is (example and offset group, tap, place); it reads the channels of the group.
    pictures = x.reshaped(-1, channels, x.dims(2))
    moved = offset.reshaped(-1, taps, 2, offset.dims(2))
    axes = [Axis(x.dims(k, k + 1), "zeros", corners=True) for k in (2, 3)]
    count, read = node.graph.fresh("points"), []
    for k, (axis, start) in enumerate(zip(axes, _starts(node, offset), strict=True)):
        coordinate = moved.op("Gather", node.graph.scalar(k, TensorProto.INT64), axis=2) + start
        read.append(axis.taps(coordinate.op("Reshape", [-1]).shaped((count,)), "linear"))
    picture = owners(x.dims(0, 1) * shared, places * taps).shaped((count,))
    points = sampled(pictures, picture, axes, read)
    values = points.reshaped(-1, shared, taps, places, channels)
    gates = None if mask is None else mask.reshaped(-1, shared, taps, places, 1)

    by_group = g.reshaped(-1, group, outputs // group, places)
    matrix = weight.op("Reshape", [group, outputs // group, per_group * taps])
    sent: Sent = [None] * len(node.inputs)
    if node.wanted[1]:
        gated = values if gates is None else values * gates
        columns = gated.op("Transpose", perm=[0, 1, 4, 2, 3]).reshaped(-1, group, per_group * taps, places)
        product = by_group.op("MatMul", columns.op("Transpose", perm=[0, 1, 3, 2]))
        sent[1] = product.op("ReduceSum", [0], keepdims=0).op("Reshape", list(weight.sizes))
    through = matrix.op("Transpose", perm=[0, 2, 1]).op("MatMul", by_group)
    through = through.reshaped(-1, shared, channels, taps, places).op("Transpose", perm=[0, 1, 3, 4, 2])
    if mask is not None and node.wanted[4]:
        sent[4] = (through * values).op("ReduceSum", [4], keepdims=0).reshaped_like(mask)
    arrived = (through if gates is None else through * gates).op("Reshape", [-1, channels])
    wanted = [node.wanted[0], node.wanted[2]]
    asked = [t for t, is_wanted in zip((x, offset), wanted, strict=True) if is_wanted]
    found = back(node.graph, node.graph.nodes[before:], asked, [(points, arrived)])
    sent[0], sent[2] = in_place(wanted, found)
    if len(node.inputs) > 3 and node.wanted[3]:
        sent[3] = g.op("ReduceSum", [0, 2, 3], keepdims=0)
    return sent


def _starts(node: Node, offset: Tensor) -> list[Tensor]:
    """Rows (taps, OH, 1) and columns (taps, 1, OW) that the kernel's taps read where nothing is displaced."""
    windows = Windows.written(node)
    taps = np.indices(windows.kernel).reshape(2, -1, 1, 1)
    starts = []
    for axis in (0, 1):
        places = offset.dims(2 + axis, 3 + axis).counted() * windows.strides[axis]
        along = places.op("Cast", to=offset.dtype).op("Unsqueeze", [1 - axis])
        shift = taps[axis] * windows.dilations[axis] - windows.begin[axis]
        starts.append(offset.like(shift) + along)
    return starts
