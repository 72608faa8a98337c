from __future__ import annotations

from mollikit_onnx.rules import Node, Tensor, formula


@formula("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(node: Node) -> list[Tensor]:
    """-w_t x_t for the target t of each place, as it is, summed, or over the sum of the w_t."""
    return [_likelihood(node, node.x)]


@formula("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(node: Node) -> list[Tensor]:
    """The loss above of log softmax(x), which is the second output."""
    log = node.x.op("LogSoftmax", axis=1)
    return [_likelihood(node, log), log]


def _likelihood(node: Node, x: Tensor) -> Tensor:
    target, weight, ignored = node.inputs[1], node.input(2), node.attribute("ignore_index")
    places = list(range(1, x.rank - 1))

    def column(vector: Tensor) -> Tensor:
        return vector.op("Unsqueeze", places) if places else vector

    classes = x.dims(1, 2).counted().op("Cast", to=target.dtype)
    meant: Tensor = target.op("Unsqueeze", [1]).op("Equal", column(classes))
    if ignored is not None:
        meant = meant.op("And", target.op("Equal", ignored).op("Not").op("Unsqueeze", [1]))
    weights = meant.op("Cast", to=x.dtype)
    if weight is not None:
        weights = weights * column(weight)
    each = -(weights * x).op("ReduceSum", [1], keepdims=0)
    if node.attribute("reduction") == "none":
        return each
    total = each.op("ReduceSum", keepdims=0)
    return total / weights.op("ReduceSum", keepdims=0) if node.attribute("reduction") == "mean" else total
