from __future__ import annotations

from mollikit_onnx.node import Node
from mollikit_onnx.registry import rule
from mollikit_onnx.tensor import Tensor
from mollikit_onnx.windows import Windows

Sent = list[Tensor | None]


@rule("Conv")
def conv(node: Node, g: Tensor) -> Sent:
    """Adjoints of the correlation of x and weight, which is linear in each."""
    x, weight = node.inputs[:2]
    windows, group = Windows.of(node), node.attribute("group")
    sent: Sent = [None] * len(node.inputs)
    if node.wanted[0]:
        sent[0] = windows.adjoint(g, weight, x, group)
    if node.wanted[1]:
        sent[1] = windows.weight_gradient(g, x, weight, group)
    if len(node.inputs) > 2 and node.wanted[2]:
        sent[2] = g.op("ReduceSum", [0, *range(2, 2 + len(windows.kernel))], keepdims=0)
    return sent
