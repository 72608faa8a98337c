from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from onnx import NodeProto, TensorProto

from mollikit_onnx.activity import QUANTISERS, active_path, has_rule
from mollikit_onnx.errors import UnsupportedOperatorError
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.pruning import names_read
from mollikit_onnx.graphs.tensor import FLOATS, Tensor
from mollikit_onnx.normal_form.validity import left_over
from mollikit_onnx.registry import Expansion, Sent, find_rule, rule

Formula = TypeVar("Formula", bound=Expansion)

# Operators that serve integers that stand for floats.
_ON_CODES = {"Cast", "Concat", "ConvInteger", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity"}
_ON_CODES |= {"MatMulInteger", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def accumulate(
    nodes: Sequence[NodeProto], graph: GraphBuilder, wrt: Collection[str], cotangents: dict[str, Tensor]
) -> None:
    """Pull cotangents back through nodes, those that come later first.

    Parameters
    ----------
    nodes : sequence of NodeProto
        In topological order; they were emitted in ``graph``.
    graph : GraphBuilder
        Where the rules emit.
    wrt : collection of str
        Tensors whose cotangents are wanted.
    cotangents : dict
        By name of tensor; those of all tensors between are added. What has none is not reached.

    Raises
    ------
    UnsupportedOperatorError
        If an operator between has no rule, or none for the way it is used.
    """
    active, path = active_path(nodes, wrt, list(cotangents), lambda n: graph.tensor(n).dtype, graph.opsets)
    for node in path:
        if not has_rule(node, graph.opsets):
            _refuse(node, left_over(node) or "no rule for its gradient, and it lies between wrt and of")
        _check_codes(node, active, graph)
    for node in reversed(path):
        _pull_back(Node(node, graph, active), cotangents)


def add_to(cotangents: dict[str, Tensor], x: Tensor, g: Tensor) -> None:
    """Add a cotangent of x to those that it has."""
    before = cotangents.get(x.name)
    total = g if before is None else before + g
    # Integers that stand for floats have the cotangents of these.
    cotangents[x.name] = x.graph.typed(total, x) if x.dtype in FLOATS else total.shaped(x.shape)


def formula(*op_types: str, since: int = 1, domain: str = "") -> Callable[[Formula], Formula]:
    """Register a function that writes down what operators compute; their gradient is that of what it writes.

    It is shorter than a rule. The forward node stays as it is, and what the gradient does not need of the
    formula is left out in the end.

    Parameters
    ----------
    *op_types : str
        Operators that the formula serves.
    since : int
        As for `rule`.
    domain : str
        Domain of the operators; "" is ai.onnx.

    Returns
    -------
    callable
        Decorator of a function ``node -> sequence of Tensor or None``: the node's outputs.

    Examples
    --------
    >>> @formula("Cube", domain="com.example")
    ... def cube(node):
    ...     return [node.x * node.x * node.x]
    """

    def register(function: Formula) -> Formula:
        def pulled_back(node: Node, *cotangents: Tensor | None) -> Sent:
            before = len(node.graph.nodes)
            made = function(node)
            pairs = [(y, g) for y, g in zip(made, cotangents, strict=False) if y is not None]
            asked = [x for x, wanted in zip(node.inputs, node.wanted, strict=False) if wanted]
            found = back(node.graph, node.graph.nodes[before:], asked, pairs)
            return in_place(node.wanted[: len(node.inputs)], found)

        rule(*op_types, since=since, domain=domain)(pulled_back)
        return function

    return register


def back(
    graph: GraphBuilder,
    nodes: Sequence[NodeProto],
    asked: Sequence[Tensor],
    pairs: Iterable[tuple[Tensor, Tensor | None]],
) -> list[Tensor]:
    """Cotangents of tensors from those of others that nodes made of them.

    One that is asked for twice has them once, and zeros after that.
    """
    scope, found = graph.scope, dict[str, Tensor]()
    for y, g in pairs:
        if g is not None:
            add_to(found, y, g)
    accumulate(nodes, graph, [x.name for x in asked], found)
    graph.scope = scope
    return [found.pop(x.name) if x.name in found else x.zeros() for x in asked]


def in_place(wanted: Sequence[bool], made: Sequence[Tensor]) -> Sent:
    """The cotangents of those that are wanted, None for the others."""
    rest = iter(made)
    return [next(rest) if is_wanted else None for is_wanted in wanted]


def _refuse(node: NodeProto, reason: str) -> None:
    raise UnsupportedOperatorError(node.op_type, node.domain, node.name or node.output[0], reason)


def _check_codes(node: NodeProto, active: set[str], graph: GraphBuilder) -> None:
    """Refuse quantisation that was not asked for, and what is not known to be right for integers."""
    plain = FLOATS | {TensorProto.UNDEFINED}
    codes = [n for n in names_read(node) if n in active and graph.tensor(n).dtype not in plain]
    if node.op_type in QUANTISERS and not graph.straight_through:
        _refuse(
            node,
            "rounding has the derivative zero almost everywhere; pass straight_through=True to take it "
            "as 1 in the range of the integers",
        )
    if codes and node.op_type not in _ON_CODES:
        _refuse(node, f"it computes with the quantised integers {codes[0]!r}, which is not covered")


def _pull_back(node: Node, cotangents: dict[str, Tensor]) -> None:
    graph = node.graph
    arrived = [cotangents.get(name) for name in node.proto.output]
    graph.scope = f"vjp/{node.proto.name or node.proto.output[0]}"
    if len(arrived) > 1:
        arrived = [
            y.zeros() if g is None and y is not None and y.dtype in FLOATS else g
            for g, y in zip(arrived, node.outputs, strict=True)
        ]
    own = find_rule(node.proto.domain, node.proto.op_type, graph.opsets.get(node.proto.domain, 1))
    assert own is not None
    try:
        sent = list(own(node, *arrived))
    except ArithmeticError as error:
        node.refuse(f"its numbers are not possible ({error})")
    read = [*node.inputs, *node.captured]
    sent += [None] * (len(read) - len(sent))
    for x, wanted, g in zip(read, node.wanted, sent, strict=False):
        if not wanted:
            continue
        if g is None:
            node.refuse(f"its rule has no gradient for the input {x.name!r}")
        add_to(cotangents, x, g)
