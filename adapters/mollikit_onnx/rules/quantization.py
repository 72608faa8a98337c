"""Quantisation, straight through: rounding has the derivative 1 in the range of the codes and 0 outside.

Codes are integers, and their cotangents floats. Sources: Bengio, Léonard and Courville 2013, "Estimating or
propagating gradients through stochastic neurons" (arXiv 1308.3432); for scales Esser et al. 2020, "Learned
step size quantization" (arXiv 1902.08153), equation 3.
"""

from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.accumulation import back, formula, in_place
from mollikit_onnx.rules import Node, Sent, Tensor, rule

_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
}


@formula("QuantizeLinear")
@formula("QuantizeLinear", domain="com.microsoft")
def quantize_linear(node: Node) -> list[Tensor]:
    """Q = clip(round(x / s) + z): dq/dx = 1 / s and dq/ds = -x / s^2 inside the range."""
    x, scale = node.inputs[:2]
    if node.y.dtype not in _RANGES:
        node.refuse("quantisation to floats of 8 bits or fewer is not covered")
    low, high = _RANGES[node.y.dtype]
    steps = (x / _spread(node, scale)).shaped(x.shape)
    code = steps.op("Round")
    if node.input(2) is not None:
        code = code + _spread(node, node.inputs[2].op("Cast", to=x.dtype))
    inside = code.op("GreaterOrEqual", low).op("And", code.op("LessOrEqual", high))
    return [(steps * inside.op("Cast", to=x.dtype)).shaped(x.shape)]


@formula("DequantizeLinear")
@formula("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(node: Node) -> list[Tensor]:
    """Y = (q - z) s: dy/dq = s and dy/ds = q - z."""
    codes, scale = node.inputs[:2]
    steps = codes.op("Cast", to=scale.dtype)
    if node.input(2) is not None:
        steps = (steps - _spread(node, node.inputs[2].op("Cast", to=scale.dtype))).shaped(codes.shape)
    return [(steps * _spread(node, scale)).shaped(codes.shape)]


@rule("MatMulInteger")
def matmul_integer(node: Node, g: Tensor) -> Sent:
    """The adjoint of a product of floats."""
    rows = node.input(2)
    if rows is not None and rows.rank == 1 and rows.sizes != (1,):
        rows = rows.op("Unsqueeze", [-1])
    return _of_floats(node, g, "MatMul", (rows, node.input(3)))


@rule("ConvInteger")
def conv_integer(node: Node, g: Tensor) -> Sent:
    """The adjoint of a convolution of floats."""
    channels = node.input(3)
    if channels is not None and channels.rank == 1 and channels.sizes != (1,):
        channels = channels.op("Unsqueeze", list(range(1, node.inputs[1].rank)))
    options = node.options("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return _of_floats(node, g, "Conv", (node.input(2), channels), **options)


def _of_floats(
    node: Node, g: Tensor, op_type: str, zeros: tuple[Tensor | None, ...], **options: object
) -> Sent:
    """Cotangents of two inputs of integers by the operator on floats."""
    before, codes, wanted = len(node.graph.nodes), node.inputs[:2], node.wanted[:2]
    floats = [
        x.op("Cast", to=g.dtype) - (0.0 if zero is None else zero.op("Cast", to=g.dtype))
        for x, zero in zip(codes, zeros, strict=True)
    ]
    y = node.graph.op(op_type, *floats, **options)
    asked = [x for x, is_wanted in zip(codes, wanted, strict=True) if is_wanted]
    return in_place(wanted, back(node.graph, node.graph.nodes[before:], asked, [(y, g)]))


def _spread(node: Node, scale: Tensor) -> Tensor:
    """Let a scale or zero point, of the tensor, of an axis or of blocks along it, broadcast with x."""
    if scale.rank == 0 or scale.sizes == (1,):
        return scale
    axis, block = node.attribute("axis", 1) % node.x.rank, node.attribute("block_size", 0)
    if block:
        return scale.op("Gather", node.x.dims(axis, axis + 1).counted().op("Div", block), axis=axis)
    trailing = list(range(1, node.x.rank - axis))
    return scale.op("Unsqueeze", trailing) if trailing else scale
