from __future__ import annotations

from mollikit_onnx.interpolation import Axis, Sampling, as_rows, from_rows, owners
from mollikit_onnx.node import Node
from mollikit_onnx.registry import Sent, rule
from mollikit_onnx.tensor import Tensor

_OLD_NAMES = {"bilinear": "linear", "bicubic": "cubic"}


@rule("GridSample")
def grid_sample(node: Node, g: Tensor) -> Sent:
    """Y is linear in x, by weights that are piecewise polynomials of the grid's coordinates."""
    x, grid = node.inputs
    rank = x.rank - 2
    corners, mode = bool(node.attribute("align_corners")), node.attribute("mode")
    if rank > 2 and _OLD_NAMES.get(mode, mode) == "cubic":
        node.refuse("mode cubic is covered for pictures of two dimensions alone, as by runtimes")
    axes = [Axis(x.dims(k, k + 1), node.attribute("padding_mode"), corners) for k in range(2, x.rank)]
    points = grid.op("Reshape", [-1, rank])
    stretches, taps = [], []
    for k, axis in enumerate(axes):
        length = axis.size.op("Cast", to=grid.dtype)
        stretch = (length - 1.0 if corners else length) * 0.5
        # The last coordinate of a point goes with the first axis of the picture. -1 and 1 are its ends.
        place = points.op("Gather", [rank - 1 - k], axis=1).op("Reshape", [-1])
        u = (place + 1.0) * stretch
        taps.append(axis.taps(u if corners else u - 0.5, _OLD_NAMES.get(mode, mode)))
        stretches.append(stretch)
    each = grid.dims(1, grid.rank - 1).op("ReduceProd")
    sampling = Sampling.of(x, owners(x.dims(0, 1), each), axes, taps)
    arrived = as_rows(g)
    sent: Sent = [from_rows(sampling.of_rows(arrived), x) if node.wanted[0] else None, None]
    if node.wanted[1]:
        along = zip(sampling.of_coordinates(arrived), stretches, strict=True)
        columns = [(du * stretch).op("Unsqueeze", [1]) for du, stretch in along]
        sent[1] = node.graph.op("Concat", *reversed(columns), axis=1).reshaped_like(grid)
    return sent
