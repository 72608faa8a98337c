"""Quantisation, straight through: rounding has the derivative 1 in the range of the codes and 0 outside.

Codes are integers, and their cotangents floats. Sources: Bengio, Léonard and Courville 2013, "Estimating or
propagating gradients through stochastic neurons" (arXiv 1308.3432); for scales Esser et al. 2020, "Learned
step size quantization" (arXiv 1902.08153), equation 3.
"""

from __future__ import annotations

from onnx import NodeProto, TensorProto, helper

from mollikit_onnx.node import Node
from mollikit_onnx.registry import Sent, rule
from mollikit_onnx.rules.convolution import conv
from mollikit_onnx.rules.indexing import gather
from mollikit_onnx.rules.linear_algebra import matmul
from mollikit_onnx.tensor import Tensor

_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
}


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain="com.microsoft")
def quantize_linear(node: Node, g: Tensor) -> Sent:
    """Q = clip(round(x / s) + z): dq/dx = 1 / s and dq/ds = -x / s^2 inside the range."""
    x, scale = node.inputs[:2]
    if node.y.dtype not in _RANGES:
        node.refuse("quantisation to floats of 8 bits or fewer is not covered")
    low, high = _RANGES[node.y.dtype]
    spread = _spread(node, scale)
    code = (x / spread).op("Round")
    if node.input(2) is not None:
        code = code + _spread(node, node.inputs[2].op("Cast", to=x.dtype))
    inside = code.op("GreaterOrEqual", low).op("And", code.op("LessOrEqual", high))
    through = (g * inside.op("Cast", to=g.dtype) / spread).shaped(x.shape)
    return [through, _collected(node, -(through * x / spread), scale) if node.wanted[1] else None]


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(node: Node, g: Tensor) -> Sent:
    """Y = (q - z) s: dy/dq = s and dy/ds = q - z."""
    codes, scale = node.inputs[:2]
    sent: Sent = [(g * _spread(node, scale)).shaped(codes.shape), None]
    if node.wanted[1]:
        steps = codes.op("Cast", to=g.dtype)
        if node.input(2) is not None:
            steps = steps - _spread(node, node.inputs[2].op("Cast", to=g.dtype))
        sent[1] = _collected(node, (g * steps).shaped(codes.shape), scale)
    return sent


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
    return _of_floats(node, g, "Conv", (node.input(2), channels))


def _of_floats(node: Node, g: Tensor, op_type: str, zeros: tuple[Tensor | None, ...]) -> Sent:
    """Cotangents of two inputs of integers by the rule of the operator on floats."""
    floats = [
        x.op("Cast", to=g.dtype) - (0.0 if zero is None else zero.op("Cast", to=g.dtype))
        for x, zero in zip(node.inputs[:2], zeros, strict=True)
    ]
    proto = NodeProto(op_type=op_type, input=[x.name for x in floats], output=node.proto.output)
    proto.attribute.extend(node.proto.attribute)
    wanted = {x.name for x, wanted in zip(floats, node.wanted, strict=False) if wanted}
    as_floats = Node(proto, node.graph, wanted)
    return list((matmul if op_type == "MatMul" else conv)(as_floats, g))


def _blocks(node: Node, scale: Tensor) -> NodeProto:
    """The Gather that gives each element along the axis the scale of its block."""
    axis = node.attribute("axis", 1) % node.x.rank
    indices = node.x.dims(axis, axis + 1).counted().op("Div", node.attribute("block_size", 0))
    return helper.make_node("Gather", [scale.name, indices.name], [node.graph.fresh("block")], axis=axis)


def _spread(node: Node, scale: Tensor) -> Tensor:
    """Let a scale or zero point, of the tensor, of an axis or of blocks along it, broadcast with x."""
    if _whole(scale):
        return scale
    if node.attribute("block_size", 0):
        (spread,) = node.graph.emit(_blocks(node, scale))
        return spread
    trailing = list(range(1, node.x.rank - node.attribute("axis", 1) % node.x.rank))
    return scale.op("Unsqueeze", trailing) if trailing else scale


def _collected(node: Node, g: Tensor, scale: Tensor) -> Tensor:
    """The adjoint of `_spread`."""
    if _whole(scale):
        return g.op("ReduceSum", keepdims=0).reshaped_like(scale)
    if node.attribute("block_size", 0):
        proto = _blocks(node, scale)
        node.graph.emit(proto)
        (collected, *_) = gather(Node(proto, node.graph, {scale.name}), g)
        assert collected is not None
        return collected
    axis = node.attribute("axis", 1) % node.x.rank
    return g.op("ReduceSum", [k for k in range(node.x.rank) if k != axis], keepdims=0)


def _whole(scale: Tensor) -> bool:
    return scale.rank == 0 or scale.sizes == (1,)
