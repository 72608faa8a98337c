from __future__ import annotations

from mollikit_onnx.node import Node
from mollikit_onnx.registry import rule
from mollikit_onnx.tensor import Tensor

Sent = list[Tensor | None]


@rule("BatchNormalization")
def batch_normalization(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """Y = s (x - m) / sqrt(v + e) + b, channel by channel."""
    if node.attribute("training_mode"):
        node.refuse("training_mode couples the examples of a batch; export the model for inference")
    x, scale, _, mean, variance = node.inputs
    inverse = 1 / (variance + node.attribute("epsilon")).op("Sqrt")
    trailing = list(range(1, x.rank - 1))
    others = [0, *range(2, x.rank)]

    def column(vector: Tensor) -> Tensor:
        return vector.op("Unsqueeze", trailing) if trailing else vector

    def summed(tensor: Tensor) -> Tensor:
        return tensor.op("ReduceSum", others, keepdims=0)

    factor = scale * inverse
    sent: Sent = [g * column(factor)]
    if any(node.wanted[1:]):
        along = summed(g * (x - column(mean))) * inverse
        total = summed(g)
        sent += [along, total, -(total * factor), -0.5 * along * factor * inverse]
    return sent


@rule("Dropout")
def dropout(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """At inference dy/dx = 1."""
    training = node.input(2)
    if training is not None and (training.value is None or training.value.any()):
        node.refuse("training_mode draws random numbers; export the model for inference")
    return [g]
