from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from mollikit_onnx.graphs.pruning import names_read

# Operators that act on each element by itself. Where such operators lead from one tensor to another of its
# shape, they are a function of a single variable, whatever their number: x * sigmoid(x) is one.
_AFFINE = frozenset({"Add", "Sub", "Neg", "Identity", "Sum"})
_SCALED = frozenset({"Mul", "Div"})  # affine while one factor alone varies, and it is no divisor
# Not defined, or not bounded, on all of R: nothing may be evaluated but where the model itself does.
# fmt: off
_SINGULAR = frozenset({
    "Acos", "Acosh", "Atanh", "Asin", "Cosh", "Div", "Exp", "Log", "Pow", "Reciprocal", "Sinh", "Sqrt", "Tan",
})
_SMOOTH = frozenset({
    "Abs", "And", "Asinh", "Atan", "Cast", "CastLike", "Celu", "Clip", "Cos", "Elu", "Equal", "Erf", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Max",
    "Mean", "Min", "Mish", "Not", "Or", "PRelu", "Relu", "Selu", "Shrink", "Sigmoid", "Sign", "Sin",
    "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu", "Where",
})
# fmt: on
SHAPES = frozenset({"Shape", "Size"})
ELEMENTWISE = _AFFINE | _SCALED | _SINGULAR | _SMOOTH


@dataclass(frozen=True)
class Chain:
    """Elementwise nodes that make ``leaf`` a function of ``source``, element by element.

    Attributes
    ----------
    source, leaf : str
        Tensors of one shape.
    nodes : tuple of NodeProto
        From the one to the other, in order.
    everywhere : bool
        Whether the function may be evaluated at any number.
    """

    source: str
    leaf: str
    nodes: tuple[NodeProto, ...]
    everywhere: bool


def varying(nodes: Sequence[NodeProto], wrt: Collection[str]) -> set[str]:
    """Tensors whose values depend on ``wrt``; a shape does not."""
    reached = set(wrt)
    for node in nodes:
        if node.op_type not in SHAPES and not reached.isdisjoint(names_read(node)):
            reached.update(name for name in node.output if name)
    return reached


def chains(
    nodes: Sequence[NodeProto],
    reached: Collection[str],
    visible: Collection[str],
    shape: Callable[[str], tuple[int, ...] | None],
) -> dict[str, Chain]:
    """Find the nonlinear chains among nodes, by their leaves.

    Parameters
    ----------
    nodes : sequence of NodeProto
        In topological order, none without use.
    reached : collection of str
        Tensors that vary.
    visible : collection of str
        Tensors that are asked for from outside.
    shape : callable
        Sizes of a tensor where they are known.
    """
    source: dict[str, str] = {}
    linear: dict[str, bool] = {}
    made: dict[str, NodeProto] = {}
    for node in nodes:
        made.update(dict.fromkeys(node.output, node))
        moving = [name for name in node.input if name in reached]
        if not moving or node.op_type not in ELEMENTWISE or node.domain or len(node.output) != 1:
            continue
        (out,), roots = node.output, {source.get(name, name) for name in moving}
        root = next(iter(roots))
        if len(roots) > 1 or shape(out) is None or shape(out) != shape(root):
            continue
        source[out] = root
        linear[out] = _is_affine(node, moving) and all(linear.get(name, True) for name in moving)
    read_outside = set(visible)
    for node in nodes:
        inside = len(node.output) == 1 and node.output[0] in source
        read_outside.update(() if inside else names_read(node))
    return {
        leaf: _chain(root, leaf, nodes, source, made)
        for leaf, root in source.items()
        if leaf in read_outside and not linear[leaf]
    }


def _is_affine(node: NodeProto, moving: Sequence[str]) -> bool:
    if node.op_type in _SCALED:
        return len(moving) == 1 and not (node.op_type == "Div" and moving[0] == node.input[1])
    return node.op_type in _AFFINE


def _chain(
    root: str, leaf: str, nodes: Sequence[NodeProto], source: Mapping[str, str], made: Mapping[str, NodeProto]
) -> Chain:
    wanted, kept = [leaf], set()
    while wanted:
        name = wanted.pop()
        if name not in kept and source.get(name) == root and name != root:
            kept.add(name)
            wanted.extend(made[name].input)
    own = tuple(node for node in nodes if len(node.output) == 1 and node.output[0] in kept)
    return Chain(root, leaf, own, not any(node.op_type in _SINGULAR for node in own))
