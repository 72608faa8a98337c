"""Operators on quantised integers: the same on floats, between DequantizeLinear and QuantizeLinear.

Source: the ONNX operators of that name; onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from mollikit_onnx.rules import Node, Tensor, expansion
from mollikit_onnx.rules.fused import Made, fused


def _opened(node: Node, k: int, axis: int = 0) -> Tensor:
    """The floats for which the integers of inputs k, k + 1, k + 2 (codes, scale, zero point) stand."""
    scale, zero = (_scalar(node.input(j)) for j in (k + 1, k + 2))
    assert scale is not None
    return node.graph.op("DequantizeLinear", node.inputs[k], scale, zero, axis=axis if scale.rank else 0)


def _closed(node: Node, y: Tensor, k: int) -> Made:
    """The integers that stand for y, by the scale and zero point in inputs k and k + 1."""
    return [y.op("QuantizeLinear", _scalar(node.input(k)), _scalar(node.input(k + 1)))]


def _scalar(scale: Tensor | None) -> Tensor | None:
    return scale.op("Squeeze", [0]) if scale is not None and scale.sizes == (1,) else scale


@expansion("QLinearConv")
def qlinear_conv(node: Node) -> Made:
    """A convolution; its bias has the scale of the product."""
    x, weight = _opened(node, 0), _opened(node, 3)
    bias = node.input(8)
    if bias is not None:
        bias = bias.op("Cast", to=x.dtype) * node.inputs[1] * node.inputs[4]
    options = node.options("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return _closed(node, node.graph.op("Conv", x, weight, bias, **options), 6)


@expansion("QLinearMatMul")
def qlinear_matmul(node: Node) -> Made:
    """A product of matrices."""
    return _closed(node, _opened(node, 0, axis=-2).op("MatMul", _opened(node, 3, axis=-1)), 6)


@fused("QLinearAdd", "QLinearMul")
def qlinear_arithmetic(node: Node) -> Made:
    """A sum or a product."""
    return _closed(node, _opened(node, 0).op(node.proto.op_type.removeprefix("QLinear"), _opened(node, 3)), 6)


@fused("QLinearSigmoid", "QLinearLeakyRelu")
def qlinear_activation(node: Node) -> Made:
    """An activation."""
    kind = node.proto.op_type.removeprefix("QLinear")
    return _closed(node, _opened(node, 0).op(kind, **node.options("alpha")), 3)


@fused("QLinearSoftmax")
def qlinear_softmax(node: Node) -> Made:
    """A softmax over one axis."""
    x, axis = _opened(node, 0), node.attribute("axis", -1)
    if node.attribute("opset", 13) < 13 and axis % x.rank != x.rank - 1:
        node.refuse("a softmax over several axes is not covered")
    return _closed(node, x.op("Softmax", axis=axis), 3)


@fused("QLinearAveragePool", "QLinearGlobalAveragePool")
def qlinear_average_pool(node: Node) -> Made:
    """An average over windows or over everything."""
    if node.attribute("channels_last", 0):
        node.refuse("channels_last is not covered")
    options = node.options("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
    return _closed(node, _opened(node, 0).op(node.proto.op_type.removeprefix("QLinear"), **options), 3)


@fused("QLinearConcat")
def qlinear_concat(node: Node) -> Made:
    """The inputs, each of its own scale, joined."""
    parts = [_opened(node, k) for k in range(2, len(node.inputs), 3)]
    return _closed(node, node.graph.op("Concat", *parts, axis=node.attribute("axis")), 0)


@fused("MatMulIntegerToFloat")
def matmul_integer_to_float(node: Node) -> Made:
    """A product of integers, at once as floats: a, b, their scales, their zero points, a bias."""
    a, b, by_a, by_b = node.inputs[:4]
    product = node.graph.op("MatMulInteger", a, b, *(_scalar(node.input(k)) for k in (4, 5)))
    y = product.op("Cast", to=by_a.dtype) * (by_a * by_b)
    bias = node.input(6)
    return [y if bias is None else y + bias]


@fused("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(node: Node) -> Made:
    """A product of floats, quantised on the way, and integers: b, its scale, its zero point, a bias."""
    codes, scale, zero = node.graph.ops(3, "DynamicQuantizeLinear", node.x)
    product = codes.op("MatMulInteger", node.inputs[1], zero, _scalar(node.input(3)))
    y = product.op("Cast", to=node.x.dtype) * (scale * node.inputs[2])
    bias = node.input(4)
    return [y if bias is None else y + bias]
