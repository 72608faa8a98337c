from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from mollikit_onnx.node import Node
from mollikit_onnx.registry import rule
from mollikit_onnx.rules.origins import identity_matrix
from mollikit_onnx.tensor import Tensor

Sent = list[Tensor | None]


@rule("RoiAlign", since=16)
def roi_align(node: Node, g: Tensor) -> Sent:
    """Averages over bins of bilinear interpolation: a matrix for the rows of each region and one for columns.

    The operator itself makes them from the identity, a picture of one column or of one row.
    """
    if node.attribute("mode") != "avg":
        node.refuse("mode max is not covered, only avg")
    if node.wanted[1]:
        node.refuse("the gradient with respect to the regions is not covered")
    x, owner = node.x, node.inputs[2]
    rows, columns = _bins(node, by_rows=True), _bins(node, by_rows=False)
    # (R, C, PH, PW) (R, 1, PW, W), then for each picture the sum over its regions and their rows.
    across = g.op("MatMul", columns.op("Transpose", perm=[0, 2, 1]).op("Unsqueeze", [1]))
    minus = node.graph.operand([-1], TensorProto.INT64)
    places = x.dims(1, 2) * x.dims(3)
    flat = across.op("Transpose", perm=[0, 2, 1, 3]).op("Reshape", minus.op("Concat", places, axis=0))
    pictures = node.graph.scalar(0, TensorProto.INT64).op("Range", x.dims(0, 1).op("Squeeze", [0]), 1)
    owned = pictures.op("Unsqueeze", [1]).op("Equal", owner).op("Cast", to=x.dtype)
    matrix = (owned.op("Unsqueeze", [2, 3]) * rows).op("Transpose", perm=[0, 2, 1, 3])
    shape = node.graph.operand([0, 0], TensorProto.INT64).op("Concat", x.dims(1, 2), [-1], axis=0)
    summed = matrix.op("Reshape", [0, 0, -1]).op("MatMul", flat).op("Reshape", shape)
    return [summed.op("Transpose", perm=[0, 2, 1, 3]).shaped(x.shape)]


def _bins(node: Node, *, by_rows: bool) -> Tensor:
    """Weights (R, size, bins) of the rows or the columns of a picture in the bins of each region."""
    x, rois, owner = node.inputs
    scale, axis = node.attribute("spatial_scale"), 2 if by_rows else 3
    # Across, the region is the one element that there is: sampled inside of it, whatever the ratio.
    first = 0.5 if node.attribute("coordinate_transformation_mode") == "half_pixel" else 0.0
    dtype = helper.tensor_dtype_to_np_dtype(rois.dtype)
    alone = np.array([first, first, first + 1, first + 1], dtype) / dtype.type(scale)
    kept = node.graph.constant(np.array([not by_rows, by_rows] * 2))
    regions = rois.where(kept, node.graph.constant(alone.astype(dtype)))
    picture = identity_matrix(x.dims(axis, axis + 1), x.dtype).op("Unsqueeze", [0, 3 if by_rows else 2])
    names = ("coordinate_transformation_mode", "sampling_ratio", "mode")
    bins = {"output_height": 1, "output_width": 1}
    name = "output_height" if by_rows else "output_width"
    attributes = {key: node.attribute(key) for key in names} | bins | {name: node.attribute(name)}
    weights = picture.op("RoiAlign", regions, owner - owner, spatial_scale=scale, **attributes)
    return weights.op("Squeeze", [3 if by_rows else 2])
