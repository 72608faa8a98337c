from __future__ import annotations

from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("Sin")
def sin(node: Node, g: Tensor) -> Sent:
    """dy/dx = cos x."""
    return [g * node.x.op("Cos")]


@rule("Cos")
def cos(node: Node, g: Tensor) -> Sent:
    """dy/dx = -sin x."""
    return [-(g * node.x.op("Sin"))]


@rule("Tan")
def tan(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 + y^2."""
    return [g + g * node.y * node.y]


@rule("Asin")
def asin(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / sqrt(1 - x^2)."""
    return [g / ((1 - node.x) * (1 + node.x)).op("Sqrt")]


@rule("Acos")
def acos(node: Node, g: Tensor) -> Sent:
    """dy/dx = -1 / sqrt(1 - x^2)."""
    return [-(g / ((1 - node.x) * (1 + node.x)).op("Sqrt"))]


@rule("Atan")
def atan(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / (1 + x^2)."""
    return [g / (1 + node.x * node.x)]


@rule("Sinh")
def sinh(node: Node, g: Tensor) -> Sent:
    """dy/dx = cosh x."""
    return [g * node.x.op("Cosh")]


@rule("Cosh")
def cosh(node: Node, g: Tensor) -> Sent:
    """dy/dx = sinh x."""
    return [g * node.x.op("Sinh")]


@rule("Tanh")
def tanh(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 - y^2."""
    return [g - g * node.y * node.y]


@rule("Asinh")
def asinh(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / sqrt(x^2 + 1)."""
    return [g / (node.x * node.x + 1).op("Sqrt")]


@rule("Acosh")
def acosh(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / sqrt(x^2 - 1)."""
    return [g / ((node.x - 1) * (node.x + 1)).op("Sqrt")]


@rule("Atanh")
def atanh(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / (1 - x^2)."""
    return [g / ((1 - node.x) * (1 + node.x))]
