from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.origins import identity_matrix


@rule("RoiAlign", since=16)
def roi_align(node: Node, g: Tensor) -> Sent:
    """Averages over bins of bilinear interpolation: a matrix for the rows of each region and one for columns.

    The operator itself makes them from the identity, a picture of one column or of one row.
    """
    if node.attribute("mode") != "avg":
        node.refuse("mode max is not covered, only avg")
    x, owner = node.x, node.inputs[2]
    rows, columns = _bins(node, by_rows=True), _bins(node, by_rows=False)
    pictures = x.dims(0, 1).counted().op("Unsqueeze", [1])
    owned = pictures.op("Equal", owner).op("Cast", to=x.dtype).op("Unsqueeze", [2, 3])
    sent: Sent = [None, None]
    if node.wanted[0]:
        matrix = (owned * rows).op("Transpose", perm=[0, 2, 1, 3]).op("Reshape", [0, 0, -1])
        summed = matrix.op("MatMul", _along(g, columns, x.dims(1, 2) * x.dims(3)))
        summed = summed.reshaped(0, 0, x.dims(1, 2), -1)
        sent[0] = summed.op("Transpose", perm=[0, 2, 1, 3]).shaped(x.shape)
    if node.wanted[1]:
        turned, across = x.op("Transpose", perm=[0, 1, 3, 2]), g.op("Transpose", perm=[0, 1, 3, 2])
        top, bottom = _of_ends(node, _readings(g, x, columns, owned), 1, "output_height")
        left, right = _of_ends(node, _readings(across, turned, rows, owned), 0, "output_width")
        sent[1] = node.graph.op("Concat", left, top, right, bottom, axis=1)
    return sent


def _along(g: Tensor, columns: Tensor, size: Tensor) -> Tensor:
    """(regions, channels, rows, bins) times the bins' columns, as (regions * rows, channels * columns)."""
    across = g.op("MatMul", columns.op("Transpose", perm=[0, 2, 1]).op("Unsqueeze", [1]))
    return across.op("Transpose", perm=[0, 2, 1, 3]).reshaped(-1, size)


def _readings(g: Tensor, x: Tensor, columns: Tensor, owned: Tensor) -> Tensor:
    """Cotangents (regions, bins, rows of x) of the weights that rows have in bins."""
    flat = _along(g, columns, x.op("Shape", start=1, end=2) * x.op("Shape", start=3))
    pictures = x.op("Transpose", perm=[0, 1, 3, 2])
    rows, regions, bins = (t.op("Shape", start=k, end=k + 1) for t, k in ((x, 2), (g, 0), (g, 2)))
    each = flat.op("MatMul", pictures.reshaped(0, -1, rows)).reshaped(-1, regions, bins, rows)
    return (each * owned).op("ReduceSum", [0], keepdims=0)


def _of_ends(node: Node, readings: Tensor, first: int, name: str) -> tuple[Tensor, Tensor]:
    """Cotangents (regions, 1) of the two ends of the regions along an axis."""
    rois, bins, ratio = node.inputs[1], node.attribute(name), node.attribute("sampling_ratio")
    scale, shifted = node.attribute("spatial_scale"), _shifted(node)
    start, end = (
        rois.op("Gather", [k], axis=1) * scale - (0.5 if shifted else 0.0) for k in (first, first + 2)
    )
    length = end - start if shifted else (end - start).op("Max", 1.0)
    step = length / bins
    # A bin is sampled ratio times, or about once an element.
    count = step.op("Ceil") if not ratio else (step - step) + float(ratio)
    most = count.op("ReduceMax", keepdims=0).op("Cast", to=TensorProto.INT64).op("Max", 1)
    number = most.counted().op("Cast", to=rois.dtype)
    bin_number = rois.like(range(bins)).op("Unsqueeze", [1])
    # (regions, bins, samples), in bins from the start.
    times = count.op("Max", 1.0).op("Unsqueeze", [2])
    place = bin_number + (number + 0.5) / times
    u = start.op("Unsqueeze", [2]) + step.op("Unsqueeze", [2]) * place
    last = readings.op("Shape", start=2, end=3) - 1
    low = u.op("Floor").op("Cast", to=TensorProto.INT64)
    inside = u.op("Greater", 0.0).op("And", low.op("Less", last))
    inside = inside.op("And", number.op("Less", count.op("Unsqueeze", [2])))
    low = low.op("Max", 0).op("Min", last)
    high = (low + 1).op("Min", last)
    rise = readings.op("GatherElements", high, axis=2) - readings.op("GatherElements", low, axis=2)
    moved = (rise / times).where(inside)
    of_start = moved.op("ReduceSum", [1, 2], keepdims=0).op("Unsqueeze", [1])
    of_end = (moved * place).op("ReduceSum", [1, 2], keepdims=0).op("Unsqueeze", [1]) / bins
    if not shifted:
        of_end = of_end.where((end - start).op("Greater", 1.0))
    return (of_start - of_end) * scale, of_end * scale


def _shifted(node: Node) -> bool:
    return bool(node.attribute("coordinate_transformation_mode") == "half_pixel")


def _bins(node: Node, *, by_rows: bool) -> Tensor:
    """Weights (R, size, bins) of the rows or the columns of a picture in the bins of each region."""
    x, rois, owner = node.inputs
    scale, axis = node.attribute("spatial_scale"), 2 if by_rows else 3
    # Across, the region is the one element that there is: sampled inside of it, whatever the ratio.
    first = 0.5 if _shifted(node) else 0.0
    alone = [end / scale for end in (first, first, first + 1, first + 1)]
    kept = node.graph.constant(np.array([not by_rows, by_rows] * 2))
    regions = rois.where(kept, rois.like(alone))
    picture = identity_matrix(x.dims(axis, axis + 1), x.dtype).op("Unsqueeze", [0, 3 if by_rows else 2])
    options = node.options("coordinate_transformation_mode", "sampling_ratio", "mode", "spatial_scale")
    bins = {"output_height": 1, "output_width": 1}
    bins |= node.options("output_height" if by_rows else "output_width")
    weights = picture.op("RoiAlign", regions, owner - owner, **options, **bins)
    return weights.op("Squeeze", [3 if by_rows else 2])
