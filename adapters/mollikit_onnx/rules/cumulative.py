from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.graphs.recurrence import scan
from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("CumSum")
def cumulative_sum(node: Node, g: Tensor) -> Sent:
    """Each element has the sum of the cotangents from itself on."""
    reverse = 1 - node.attribute("reverse")
    return [g.op("CumSum", node.inputs[1], exclusive=node.attribute("exclusive"), reverse=reverse)]


@rule("CumProd")
def cumulative_product(node: Node, g: Tensor) -> Sent:
    """dx_i is the product before i, times s_i = g_i + x_{i+1} s_{i+1}; no division, so zeros are right."""
    x, axis = node.x, node.inputs[1]
    exclusive, reverse = node.attribute("exclusive"), node.attribute("reverse")
    before = x.op("CumProd", axis, exclusive=1, reverse=reverse)
    # The axis may be computed: (all sizes before it, its size, all sizes behind it).
    place = (axis.op("Cast", to=TensorProto.INT64) + x.rank).op("Mod", x.rank).op("Reshape", [1])
    sizes = x.dims()
    cuts = [sizes.op("Slice", *ends, [0]) for ends in (([0], place), (place + 1, [x.rank]))]
    ahead, behind = (node.graph.joined(1, cut).op("ReduceProd", keepdims=1) for cut in cuts)
    shape = (ahead, sizes.op("Gather", place), behind)
    flat = [t.reshaped(*shape, allowzero=1).shaped((None, None, None)) for t in (x, g)]

    def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        (after,), (here, cotangent) = states, slices
        if exclusive:
            return [cotangent + here * after], [after]
        return [here * (cotangent + after)], [cotangent + after]

    start = g.graph.scalar(0.0, g.dtype).op("Expand", node.graph.joined(ahead, behind))
    _, (sums,) = scan([start.shaped((None, None))], flat, step, backwards=not reverse, axis=1)
    return [before * sums.op("Reshape", sizes, allowzero=1).shaped(x.shape)]
