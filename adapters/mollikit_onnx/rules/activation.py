from __future__ import annotations

import math
from functools import reduce

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.masks import above, below, between, one_minus, times


# Masks come from outputs where they can, not inputs: onnxruntime can then fuse the activation into the
# operator before it, and the input need not be kept. Where costs more than a cast and a product.
def masked(g: Tensor, mask: Tensor) -> Tensor:
    """Return g where the mask holds, else zero."""
    return g * mask.op("Cast", to=g.dtype)


@rule("Relu")
def relu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 where y > 0, else 0."""
    return [g * above(node.y, 0.0)]


@rule("Clip")
def clip(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 strictly between the bounds, else 0; a bound has the cotangents of what it stopped."""
    x, y = node.x, node.y
    low, high = node.input(1), node.input(2)
    ends = [None if b is None or b.value is None else float(b.value.reshape(-1)[0]) for b in (low, high)]
    inside = []
    if ends[0] == 0 and ends[1] is not None and math.isfinite(ends[1]):
        inside.append(between(y, ends[1]))
    else:
        sides = ((low, above, "Greater"), (high, below, "Less"))
        for (bound, mask, comparison), end in zip(sides, ends, strict=True):
            if end is not None and math.isfinite(end):
                inside.append(mask(y, end))
            elif end is None and bound is not None:
                inside.append(y.op(comparison, bound).op("Cast", to=g.dtype))
    # The product of the masks first: it can be made in the layout of y, whatever that of g.
    sent: Sent = [g * reduce(lambda a, b: a * b, inside) if inside else g]
    for bound, beyond in ((low, "LessOrEqual"), (high, "GreaterOrEqual")):
        sent.append(None if bound is None else g.where(x.op(beyond, bound)).op("ReduceSum", keepdims=0))
    return sent


@rule("LeakyRelu")
def leaky_relu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 above zero and alpha elsewhere."""
    return [g.where(node.x.op("Greater", 0.0), g * node.attribute("alpha"))]


@rule("Elu")
def elu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 above zero and alpha exp(x) = y + alpha elsewhere."""
    return [g.where(node.x.op("Greater", 0.0), g * (node.y + node.attribute("alpha")))]


@rule("PRelu", since=7)
def prelu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 above zero and the slope elsewhere; the slope has x g of the places below."""
    x, slope = node.inputs
    above = x.op("Greater", 0.0)
    sent: Sent = [g.where(above, g * slope).shaped(x.shape) if node.wanted[0] else None]
    return [*sent, (g * x.op("Min", 0.0)).shaped(x.shape).summed_to(slope) if node.wanted[1] else None]


@rule("Selu")
def selu(node: Node, g: Tensor) -> Sent:
    """Y = gamma x above zero and gamma alpha (exp(x) - 1) elsewhere, where dy/dx = y + gamma alpha."""
    alpha, gamma = node.attribute("alpha"), node.attribute("gamma")
    return [g * (node.y + gamma * alpha).where(node.x.op("LessOrEqual", 0.0), gamma)]


@rule("Celu")
def celu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 above zero and exp(x / alpha) = y / alpha + 1 elsewhere."""
    return [g * (node.y / node.attribute("alpha") + 1).where(node.x.op("LessOrEqual", 0.0), 1.0)]


@rule("ThresholdedRelu")
def thresholded_relu(node: Node, g: Tensor) -> Sent:
    """dy/dx is 1 above alpha, else 0."""
    return [masked(g, node.x.op("Greater", node.attribute("alpha")))]


@rule("Shrink")
def shrink(node: Node, g: Tensor) -> Sent:
    """dy/dx is 0 within [-lambd, lambd], else 1."""
    x, threshold = node.x, node.attribute("lambd")
    return [masked(g, x.op("Less", -threshold).op("Or", x.op("Greater", threshold)))]


@rule("Softsign")
def softsign(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / (1 + |x|)^2."""
    below = 1 + node.x.op("Abs")
    return [g / (below * below)]


@rule("Sigmoid")
def sigmoid(node: Node, g: Tensor) -> Sent:
    """dy/dx = y (1 - y)."""
    return [g * (node.y * one_minus(node.y))]


@rule("Softplus")
def softplus(node: Node, g: Tensor) -> Sent:
    """dy/dx = sigmoid(x)."""
    return [g * node.x.op("Sigmoid")]


@rule("HardSigmoid")
def hard_sigmoid(node: Node, g: Tensor) -> Sent:
    """dy/dx is alpha where 0 < y < 1, else 0."""
    return [g * times(between(node.y, 1.0), node.attribute("alpha"))]


@rule("HardSwish")
def hard_swish(node: Node, g: Tensor) -> Sent:
    """Y = x s(x) with s(x) = clip(x / 6 + 1/2, 0, 1)."""
    gate = node.x.op("HardSigmoid", alpha=1 / 6, beta=0.5)
    return [g * (gate + times(node.x * between(gate, 1.0), 1 / 6))]


@rule("Gelu")
def gelu(node: Node, g: Tensor) -> Sent:
    """Y = x Phi(x), or x (1 + t) / 2 with t = tanh(c (x + a x^3))."""
    x = node.x
    if node.attribute("approximate") == "tanh":
        c, a = math.sqrt(2 / math.pi), 0.044715
        t = ((x + a * x * x * x) * c).op("Tanh")
        return [g * (0.5 * (1 + t) + x * (1 - t * t) * (1 + 3 * a * x * x) * (0.5 * c))]
    # y = x Phi(x), so y' = Phi(x) + x phi(x); with d = x / sqrt(2), half of 1 + erf(d) + d erf'(d).
    d = x * math.sqrt(0.5)
    slope = (math.log(2 / math.sqrt(math.pi)) - d * d).op("Exp")
    return [0.5 * g * (1 + d.op("Erf") + d * slope)]


@rule("Swish")
def swish(node: Node, g: Tensor) -> Sent:
    """Y = x s with s = sigmoid(alpha x)."""
    x, alpha = node.x, node.attribute("alpha")
    gate = (x * alpha).op("Sigmoid")
    return [g * (gate + alpha * x * (gate - gate * gate))]


@rule("Softmax", since=13)
def softmax(node: Node, g: Tensor) -> Sent:
    """y_i (g_i - sum_j g_j y_j)."""
    y = _number_where_replaced(node)
    weighted = g * y
    return [weighted - y * weighted.op("ReduceSum", [node.attribute("axis")], keepdims=1)]


def _number_where_replaced(node: Node) -> Tensor:
    """Return y, without NaN if a Where follows: attention so drops rows that are masked altogether.

    Their cotangent is zero then, and zero times NaN must be zero too.
    """
    heirs = {node.y.name}
    for later in node.graph.nodes:
        if later.op_type in ("Cast", "Identity") and later.input[0] in heirs:
            heirs.update(later.output)
        if later.op_type == "Where" and not heirs.isdisjoint(later.input):
            return node.graph.scalar(0.0, node.y.dtype).where(node.y.op("IsNaN"), node.y)
    return node.y


@rule("LogSoftmax", since=13)
def log_softmax(node: Node, g: Tensor) -> Sent:
    """g_i - softmax_i sum_j g_j."""
    return [g - node.y.op("Exp") * g.op("ReduceSum", [node.attribute("axis")], keepdims=1)]
