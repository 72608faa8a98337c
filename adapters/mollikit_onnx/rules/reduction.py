from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mollikit_onnx.rules import Node, Sent, Tensor, rule


def kept(node: Node, reduced: Tensor) -> Tensor:
    """Give a tensor of the reduction's output shape the reduced axes back, with size 1."""
    x, axes = node.x, node.input(1)
    if node.attribute("keepdims"):
        return reduced
    if axes is not None and axes.value is not None and axes.value.size:
        return reduced.op("Unsqueeze", axes)
    if node.attribute("noop_with_empty_axes") and (axes is None or axes.value is not None):
        return reduced
    if axes is None or axes.value is not None:
        return reduced.op("Reshape", [1] * x.rank)
    # The axes are computed: the shape is that of the same reduction with the axes kept.
    like = x.op(
        node.proto.op_type, axes, keepdims=1, noop_with_empty_axes=node.attribute("noop_with_empty_axes")
    )
    return reduced.op("Reshape", like.dims(), allowzero=1)


@rule("ReduceSum", since=13)
def reduce_sum(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1."""
    return [kept(node, g).expanded_like(node.x)]


@rule("ReduceMean", since=18)
def reduce_mean(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / count."""
    return [(kept(node, g) * averaging(node.x, node.y)).expanded_like(node.x)]


def averaging(x: Tensor, y: Tensor) -> Tensor | float:
    """One over the number of elements of x that go into one of y."""
    if x.shape is not None and y.shape is not None:
        # A symbolic size that both have, such as the batch, cancels.
        of_x, of_y = [n for n in x.shape if n != 1], [n for n in y.shape if n != 1]
        for size in [n for n in of_y if n is not None and n in of_x]:
            of_x.remove(size)
            of_y.remove(size)
        if not of_y and all(isinstance(n, int) for n in of_x):
            count = 1
            for n in of_x:
                count *= int(n or 0)
            return 1 / count
    return y.op("Size").op("Cast", to=x.dtype) / x.op("Size").op("Cast", to=x.dtype)


@rule("ReduceMax", "ReduceMin", since=18)
def reduce_extremum(node: Node, g: Tensor) -> Sent:
    """Elements that equal y share its cotangent."""
    chosen = node.x.op("Equal", kept(node, node.y)).op("Cast", to=g.dtype)
    return [chosen * (kept(node, g) / reduced_again(node, chosen, "ReduceSum"))]


@rule("ReduceProd", since=18)
def reduce_prod(node: Node, g: Tensor) -> Sent:
    """dy/dx_i is the product of the others."""
    others = products_of_others(node.x, partial(reduced_again, node))
    return [kept(node, g) * others]


def reduced_again(node: Node, x: Tensor, op_type: str) -> Tensor:
    """Reduce another tensor of the input's shape over the same axes, and keep these with size 1."""
    noop = node.attribute("noop_with_empty_axes")
    return x.op(op_type, node.input(1), keepdims=1, noop_with_empty_axes=noop)


def products_of_others(x: Tensor, reduced: Callable[[Tensor, str], Tensor]) -> Tensor:
    """For each element the product of the others that it is reduced with, whatever is zero."""
    zero = x.op("Equal", 0.0)
    filled = x.graph.scalar(1.0, x.dtype).where(zero, x)
    product = reduced(filled, "ReduceProd")
    zeros = reduced(zero.op("Cast", to=x.dtype), "ReduceSum")
    # Without zeros it is product / x; a single zero leaves the others' product to itself alone.
    single = product.where(zeros.op("Equal", 1.0)).where(zero)
    return (product / filled).where(zeros.op("Equal", 0.0), single)


@rule("ReduceL1", since=18)
def reduce_l1(node: Node, g: Tensor) -> Sent:
    """dy/dx = sign(x)."""
    return [kept(node, g) * node.x.op("Sign")]


@rule("ReduceL2", since=18)
def reduce_l2(node: Node, g: Tensor) -> Sent:
    """dy/dx = x / y, and 0 where y is."""
    y = kept(node, node.y)
    return [node.x * (kept(node, g) / y.where(y.op("Greater", 0.0), 1.0))]


@rule("ReduceSumSquare", since=18)
def reduce_sum_square(node: Node, g: Tensor) -> Sent:
    """dy/dx = 2 x."""
    return [2 * node.x * kept(node, g)]


@rule("ReduceLogSumExp", since=18)
def reduce_log_sum_exp(node: Node, g: Tensor) -> Sent:
    """dy/dx = exp(x - y), and 0 where all of x are -inf."""
    y = kept(node, node.y)
    return [(node.x - y.where(y.op("IsInf", detect_positive=0).op("Not"))).op("Exp") * kept(node, g)]
