"""Operators of onnxruntime's own domain that its optimiser and exporters leave in models, written out.

Source: onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

import math
from functools import partial

from mollikit_onnx.rules import Node, Tensor, expansion

Made = list[Tensor | None]
fused = partial(expansion, domain="com.microsoft")


def _erf_gelu(x: Tensor) -> Tensor:
    return x * (0.5 * (1 + (x * math.sqrt(0.5)).op("Erf")))


def plus(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add what may be left out."""
    return x if bias is None else x + bias


@fused("Gelu", "BiasGelu")
def gelu(node: Node) -> Made:
    """Return x Phi(x), of x + bias where there is one."""
    return [_erf_gelu(plus(node.x, node.input(1)))]


@fused("FastGelu")
def fast_gelu(node: Node) -> Made:
    """Return x (1 + tanh(c (x + 0.044715 x^3))) / 2."""
    x = plus(node.x, node.input(1))
    inner = (x + 0.044715 * x * x * x) * math.sqrt(2 / math.pi)
    return [x * (0.5 * (1 + inner.op("Tanh")))]


@fused("QuickGelu")
def quick_gelu(node: Node) -> Made:
    """Return x sigmoid(alpha x)."""
    return [node.x * (node.x * node.attribute("alpha", 1.702)).op("Sigmoid")]


@fused("FusedMatMul")
def fused_matmul(node: Node) -> Made:
    """Alpha a' b', where ' transposes the last two axes, or moves the first to the last but one."""
    sides = []
    for x, which in zip(node.inputs, "AB", strict=True):
        axes = list(range(x.rank))
        if node.attribute(f"transBatch{which}", 0):
            axes = [*axes[1:-1], axes[0], axes[-1]]
        if node.attribute(f"trans{which}", 0):
            axes = [*axes[:-2], axes[-1], axes[-2]]
        sides.append(x.op("Transpose", perm=axes) if axes != list(range(x.rank)) else x)
    return [sides[0].op("MatMul", sides[1]) * node.attribute("alpha", 1.0)]


@fused("FusedGemm")
def fused_gemm(node: Node) -> Made:
    """An activation of a Gemm."""
    y = node.graph.op("Gemm", *node.inputs, **node.options("alpha", "beta", "transA", "transB"))
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return [_activated(node, y, [node.attribute(name) for name in names])]


@fused("FusedConv")
def fused_conv(node: Node) -> Made:
    """An activation of a convolution, to which another tensor may be added before."""
    options = node.options("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    y = node.graph.op("Conv", *node.inputs[:3], **options)
    return [_activated(node, plus(y, node.input(3)), node.attribute("activation_params", []))]


def _activated(node: Node, y: Tensor, parameters: list[float | None]) -> Tensor:
    kind = node.attribute("activation", "")
    given = [value for value in parameters if value is not None]
    if not kind:
        return y
    if kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign"):
        return y.op(kind)
    if kind in ("LeakyRelu", "Elu", "HardSigmoid"):
        return y.op(kind, **dict(zip(("alpha", "beta"), given, strict=False)))
    if kind != "Clip":
        node.refuse(f"its activation {kind} is not covered")
    return y.op("Clip", *(node.graph.scalar(bound, y.dtype) for bound in given))


@fused("SkipLayerNormalization")
def skip_layer_normalization(node: Node) -> Made:
    """LayerNormalization of x + skip + bias; the sum is the fourth output."""
    summed = plus(node.x + node.inputs[1], node.input(4))
    shift = node.input(3)
    epsilon = node.attribute("epsilon", 1e-12)
    y = summed.op("LayerNormalization", node.inputs[2], shift, axis=-1, epsilon=epsilon)
    return [y, None, None, summed]


@fused("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(node: Node) -> Made:
    """The same without the mean."""
    summed = plus(node.x + node.inputs[1], node.input(3))
    y, _ = _root_mean_square(summed, node.inputs[2], -1, node.attribute("epsilon", 1e-12))
    return [y, None, None, summed]


@expansion("SimplifiedLayerNormalization")
@fused("SimplifiedLayerNormalization")
def simplified_layer_normalization(node: Node) -> Made:
    """Return x / sqrt(mean(x^2) + epsilon) * scale over the axes from one on."""
    axis = node.attribute("axis", -1)
    return list(_root_mean_square(node.x, node.inputs[1], axis, node.attribute("epsilon", 1e-5)))


def _root_mean_square(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    axes = list(range(axis % x.rank, x.rank))
    inverse = 1 / ((x * x).op("ReduceMean", axes, keepdims=1) + epsilon).op("Sqrt")
    return x * inverse * scale, inverse
