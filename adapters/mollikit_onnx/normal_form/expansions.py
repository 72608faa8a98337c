from __future__ import annotations

from collections.abc import Collection
from itertools import zip_longest
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from mollikit_onnx.activity import active_path, has_rule
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.registry import find_expansion


def standardised(
    skeleton: ModelProto,
    types: dict[str, TypeProto],
    weights: dict[str, TensorProto],
    values: dict[str, NDArray[Any]],
    wrt: Collection[str],
    of: Collection[str],
) -> None:
    """Write out the operators between ``wrt`` and ``of`` that have no rule but an expansion.

    The nodes of the model's main graph are replaced; constants that come up join its initializers, the
    weights and the values.
    """
    nodes = skeleton.graph.node
    opsets = {opset.domain: opset.version for opset in skeleton.opset_import}
    # Where types are not known yet, a tensor may hold floats.
    _, path = active_path(nodes, wrt, of, lambda _: TensorProto.FLOAT, opsets)
    chosen = {
        name
        for node in path
        if not has_rule(node, opsets) and find_expansion(node.domain, node.op_type)
        for name in node.output
    }
    if not chosen:
        return
    taken = {*types, *weights, *(name for node in nodes for name in node.output)}
    graph = GraphBuilder(opsets, types, values, taken)
    for node in nodes:
        if chosen.isdisjoint(node.output):
            graph.adopt(node)
        else:
            _write_out(node, graph)
    constants = graph.constant_protos({name for node in graph.nodes for name in node.input})
    del nodes[:]
    nodes.extend(graph.nodes)
    skeleton.graph.initializer.extend(constants)
    weights.update((constant.name, constant) for constant in constants)
    values.update((constant.name, numpy_helper.to_array(constant)) for constant in constants)


def _write_out(proto: NodeProto, graph: GraphBuilder) -> None:
    node = Node(proto, graph, set())
    expand = find_expansion(proto.domain, proto.op_type)
    assert expand is not None
    graph.scope = proto.name or next(name for name in proto.output if name)
    for name, made in zip_longest(proto.output, expand(node)):
        if not name:
            continue
        if made is None:
            node.refuse(f"its output {name!r} is not covered")
        graph.nodes.append(helper.make_node("Identity", [made.name], [name]))
        graph.declare(name, helper.make_tensor_type_proto(made.dtype, made.shape))
