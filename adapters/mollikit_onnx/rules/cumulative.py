from __future__ import annotations

from mollikit_onnx.node import Node
from mollikit_onnx.recurrence import scan
from mollikit_onnx.registry import rule
from mollikit_onnx.tensor import Tensor

Sent = list[Tensor | None]


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
    if axis.value is None:
        node.refuse("its axis is computed; make it a constant")
    along = int(axis.value.item()) % x.rank
    before = x.op("CumProd", axis, exclusive=1, reverse=reverse)
    others = x.dims(0, along).op("Concat", x.dims(along + 1), axis=0)

    def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        (after,), (here, cotangent) = states, slices
        if exclusive:
            return [cotangent + here * after], [after]
        return [here * (cotangent + after)], [cotangent + after]

    start = g.graph.scalar(0.0, g.dtype).op("Expand", others)
    start = start.shaped(None if x.shape is None else (*x.shape[:along], *x.shape[along + 1 :]))
    _, (sums,) = scan([start], [x, g.shaped(x.shape)], step, backwards=not reverse, axis=along)
    return [before * sums]
