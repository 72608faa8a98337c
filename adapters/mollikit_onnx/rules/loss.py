from __future__ import annotations

from mollikit_onnx.node import Node
from mollikit_onnx.registry import Sent, rule
from mollikit_onnx.tensor import Tensor


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(node: Node, g: Tensor) -> Sent:
    """-w_t x_t for the target t of each place, as it is, summed, or over the sum of the w_t."""
    return _likelihood(node, node.x, g)


@rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(node: Node, g: Tensor, *of_log: Tensor) -> Sent:
    """The loss above of l = log softmax(x); l's cotangent d becomes d - softmax(x) sum(d)."""
    log = node.output(1, node.x.dtype, node.x.shape)
    d, *rest = _likelihood(node, log, g)
    for cotangent in of_log:
        d = cotangent if d is None else cotangent + d
    assert d is not None
    return [d - log.op("Exp") * d.op("ReduceSum", [1], keepdims=1), *rest]


def _likelihood(node: Node, x: Tensor, g: Tensor) -> list[Tensor | None]:
    """Cotangents of the logarithms, of the targets (none) and of the weights of the classes."""
    target, weight, ignored = node.inputs[1], node.input(2), node.attribute("ignore_index")
    reduction = node.attribute("reduction")
    behind = list(range(1, x.rank - 1))

    def column(vector: Tensor) -> Tensor:
        return vector.op("Unsqueeze", behind) if behind else vector

    classes = x.dims(1, 2).counted().op("Cast", to=target.dtype)
    meant = target.op("Unsqueeze", [1]).op("Equal", column(classes))
    if ignored is not None:
        meant = meant.op("And", target.op("Equal", ignored).op("Not").op("Unsqueeze", [1]))
    chosen = meant.op("Cast", to=x.dtype)
    weights = chosen if weight is None else chosen * column(weight)
    each = g.op("Unsqueeze", [1]) if reduction == "none" else g
    if reduction == "mean":
        each = g / weights.op("ReduceSum", keepdims=0)
    sent: list[Tensor | None] = [-(weights * each).shaped(x.shape), None]
    if weight is not None:
        # The mean is -sum(w x) / sum(w), so its slope in w_t is -(x_t + mean) / sum(w).
        slope = x + node.y if reduction == "mean" else x
        sent.append(-(chosen * each * slope).op("ReduceSum", [0, *range(2, x.rank)], keepdims=0))
    return sent
