from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.graphs.interpolation import Axis, from_rows, owners, sampled
from mollikit_onnx.rules import Node, Tensor, formula

_OLD_NAMES = {"bilinear": "linear", "bicubic": "cubic"}


@formula("GridSample")
def grid_sample(node: Node) -> list[Tensor]:
    """Y is linear in x, by weights that are piecewise polynomials of the grid's coordinates."""
    x, grid = node.inputs
    rank = x.rank - 2
    corners, mode = bool(node.attribute("align_corners")), node.attribute("mode")
    if rank > 2 and _OLD_NAMES.get(mode, mode) == "cubic":
        node.refuse("mode cubic is covered for pictures of two dimensions alone, as by runtimes")
    axes = [Axis(x.dims(k, k + 1), node.attribute("padding_mode"), corners) for k in range(2, x.rank)]
    count = node.graph.fresh("points")
    points = grid.op("Reshape", [-1, rank]).shaped((count, rank))
    taps = []
    for k, axis in enumerate(axes):
        length = axis.size.op("Cast", to=grid.dtype)
        # The last coordinate of a point goes with the first axis of the picture. -1 and 1 are its ends.
        place = points.op("Gather", node.graph.scalar(rank - 1 - k, TensorProto.INT64), axis=1)
        u = (place + 1.0) * ((length - 1.0 if corners else length) * 0.5)
        taps.append(axis.taps(u if corners else u - 0.5, _OLD_NAMES.get(mode, mode)))
    each = grid.dims(1, grid.rank - 1).op("ReduceProd")
    return [from_rows(sampled(x, owners(x.dims(0, 1), each).shaped((count,)), axes, taps), node.y)]
