from __future__ import annotations

import math

from mollikit_onnx.graphs.tensor import FLOATS, Tensor
from mollikit_onnx.rules import Node, Sent, rule


@rule("Identity")
def identity(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1."""
    return [g]


@rule("Cast")
def cast(node: Node, g: Tensor) -> Sent:
    """From float to float; to other types no cotangent flows, but for integers that stand for floats."""
    return [g.op("Cast", to=node.x.dtype) if node.x.dtype in FLOATS else g]


@rule("CastLike")
def cast_like(node: Node, g: Tensor) -> Sent:
    """As Cast; of the second input only the type matters."""
    x, like = node.inputs
    return [g.op("Cast", to=x.dtype), g.graph.scalar(0.0, like.dtype).expanded_like(like)]


@rule("Neg")
def neg(node: Node, g: Tensor) -> Sent:
    """dy/dx = -1."""
    return [-g]


@rule("Abs")
def absolute(node: Node, g: Tensor) -> Sent:
    """dy/dx = sign(x)."""
    return [g * node.x.op("Sign")]


@rule("Reciprocal")
def reciprocal(node: Node, g: Tensor) -> Sent:
    """dy/dx = -y^2."""
    return [-(g * node.y * node.y)]


@rule("Exp")
def exp(node: Node, g: Tensor) -> Sent:
    """dy/dx = y."""
    return [g * node.y]


@rule("Log")
def log(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / x."""
    return [g / node.x]


@rule("Sqrt")
def sqrt(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / (2 y)."""
    return [0.5 * g / node.y]


@rule("Erf")
def erf(node: Node, g: Tensor) -> Sent:
    """dy/dx = 2 / sqrt(pi) exp(-x^2), the factor taken into the exponent."""
    return [g * (math.log(2 / math.sqrt(math.pi)) - node.x * node.x).op("Exp")]


@rule("Add", "Sum")
def add(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 for every operand."""
    return [g.summed_to(x) if wanted else None for x, wanted in zip(node.inputs, node.wanted, strict=True)]


@rule("Sub")
def sub(node: Node, g: Tensor) -> Sent:
    """dy/da = 1, dy/db = -1."""
    a, b = node.inputs
    return [g.summed_to(a), (-g).summed_to(b) if node.wanted[1] else None]


@rule("Mul")
def mul(node: Node, g: Tensor) -> Sent:
    """dy/da = b, dy/db = a."""
    a, b = node.inputs
    shape = node.y.shape
    return [
        (g * b).shaped(shape).summed_to(a) if node.wanted[0] else None,
        (g * a).shaped(shape).summed_to(b) if node.wanted[1] else None,
    ]


@rule("Div")
def div(node: Node, g: Tensor) -> Sent:
    """dy/da = 1 / b, dy/db = -y / b."""
    a, b = node.inputs
    over = (g / b).shaped(node.y.shape)
    return [over.summed_to(a), (-(over * node.y)).summed_to(b) if node.wanted[1] else None]


@rule("Pow")
def power(node: Node, g: Tensor) -> Sent:
    """dy/da = b a^(b-1), dy/db = y log a."""
    a, b = node.inputs
    exponent = b if b.dtype == a.dtype else b.op("Cast", to=a.dtype)
    base = exponents = None
    if node.wanted[0]:
        if b.value is not None and b.value.size == 1 and b.value.item() == 2:
            slope = 2 * a
        else:
            # At b = 0 the derivative is zero, where b a^(b-1) would be 0 * inf at a = 0.
            lowered = (exponent - 1).where(exponent.op("Equal", 0.0).op("Not"))
            slope = exponent * a.op("Pow", lowered)
        base = (g * slope).shaped(node.y.shape).summed_to(a)
    if node.wanted[1]:
        # y log a, zero where a is; not a number where a is negative, as there is no derivative then.
        logarithm = a.where(a.op("Equal", 0.0).op("Not"), 1.0).op("Log")
        exponents = (g * node.y * logarithm).shaped(node.y.shape).summed_to(b)
    return [base, exponents]


@rule("Max", "Min")
def extremum(node: Node, g: Tensor) -> Sent:
    """The first of the operands that equal y has the cotangent."""
    taken: Tensor | None = None
    sent: Sent = []
    for x, wanted in zip(node.inputs, node.wanted, strict=True):
        here = x.op("Equal", node.y)
        mine = here if taken is None else here.op("And", taken.op("Not"))
        taken = here if taken is None else here.op("Or", taken)
        sent.append(g.where(mine).shaped(node.y.shape).summed_to(x) if wanted else None)
    return sent


@rule("Mean")
def mean(node: Node, g: Tensor) -> Sent:
    """dy/dx = 1 / count for every operand."""
    part = g / len(node.inputs)
    return [part.summed_to(x) for x in node.inputs]


@rule("Mod")
def mod(node: Node, g: Tensor) -> Sent:
    """Y = a - n b with n = a / b rounded, to zero or down."""
    a, b = node.inputs
    whole = ((a - node.y) / b + 0.5).op("Floor").shaped(node.y.shape)
    return [g.summed_to(a), (-(g * whole)).shaped(node.y.shape).summed_to(b) if node.wanted[1] else None]


@rule("Range")
def range_(node: Node, g: Tensor) -> Sent:
    """y_k = start + k delta; the limit decides on the length alone."""
    steps = g.op("Size").op("Cast", to=g.dtype).counted()
    return [g.op("ReduceSum", keepdims=0), g.like(0), (g * steps).op("ReduceSum", keepdims=0)]


@rule("Where")
def where(node: Node, g: Tensor) -> Sent:
    """Each side has the cotangents of the places where it was chosen."""
    condition, a, b = node.inputs
    shape = node.y.shape
    zero = node.graph.scalar(0.0, g.dtype)
    return [
        None,
        g.where(condition).shaped(shape).summed_to(a) if node.wanted[1] else None,
        zero.where(condition, g).shaped(shape).summed_to(b) if node.wanted[2] else None,
    ]
