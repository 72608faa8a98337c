from __future__ import annotations

from collections.abc import Collection, Sequence

from onnx import NodeProto, TensorProto

from mollikit_onnx.activity import QUANTISERS, active_path, has_rule
from mollikit_onnx.errors import UnsupportedOperatorError
from mollikit_onnx.graph import GraphBuilder
from mollikit_onnx.node import Node
from mollikit_onnx.pruning import names_read
from mollikit_onnx.registry import find_rule
from mollikit_onnx.tensor import FLOATS, Tensor

# Operators that serve integers that stand for floats.
_ON_CODES = frozenset(
    {
        "Cast",
        "Concat",
        "ConvInteger",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MatMulInteger",
        "MaxPool",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


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
            _refuse(node, "no rule for its gradient, and it lies between wrt and of")
        _check_codes(node, active, graph)
    for node in reversed(path):
        _pull_back(Node(node, graph, active), cotangents)


def add_to(cotangents: dict[str, Tensor], x: Tensor, g: Tensor) -> None:
    """Add a cotangent of x to those that it has."""
    before = cotangents.get(x.name)
    total = g if before is None else before + g
    # Integers that stand for floats have the cotangents of these.
    cotangents[x.name] = x.graph.typed(total, x) if x.dtype in FLOATS else total.shaped(x.shape)


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
    rule = find_rule(node.proto.domain, node.proto.op_type, graph.opsets.get(node.proto.domain, 1))
    assert rule is not None
    sent = list(rule(node, *arrived))
    read = [*node.inputs, *node.captured]
    sent += [None] * (len(read) - len(sent))
    for x, wanted, g in zip(read, node.wanted, sent, strict=False):
        if not wanted:
            continue
        if g is None:
            node.refuse(f"its rule has no gradient for the input {x.name!r}")
        add_to(cotangents, x, g)
