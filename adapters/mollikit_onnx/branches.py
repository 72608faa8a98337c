from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, TensorProto, helper

from mollikit_onnx.pruning import captured, subgraphs


def taken_branch(node: NodeProto, condition: bool) -> tuple[list[NodeProto], list[TensorProto]] | None:
    """Return the nodes and constants that an If with a known condition comes down to.

    Names inside become the node's own, since branches of several Ifs may use the same ones. None where a
    branch holds what has no place outside of it.

    Parameters
    ----------
    node : NodeProto
        The If; left as it is.
    condition : bool
    """
    wanted = "then_branch" if condition else "else_branch"
    branch = GraphProto()
    branch.CopyFrom(next(a.g for a in node.attribute if a.name == wanted))
    if branch.sparse_initializer:
        return None
    origin = node.name or next(name for name in node.output if name)
    made = [name for inner in branch.node for name in inner.output] + [t.name for t in branch.initializer]
    names = {name: f"{origin}/{name}" for name in made if name}
    for tensor in branch.initializer:
        tensor.name = names[tensor.name]
    for inner in branch.node:
        _rename(inner, names)
    results = [names.get(value.name, value.name) for value in branch.output]
    copies = [
        helper.make_node("Identity", [result], [name])
        for result, name in zip(results, node.output, strict=True)
        if name
    ]
    return [*branch.node, *copies], list(branch.initializer)


def take_in(node: NodeProto, constants: Mapping[str, TensorProto]) -> None:
    """Put the constants that the graphs inside a node read from outside into them.

    onnx infers shapes from what it sees inside alone, such as the axes of a Squeeze.
    """
    for k, graph in enumerate(subgraphs(node)):
        origin = f"{node.name or next(name for name in node.output if name)}/{k}"
        names = {name: f"{name}/{origin}" for name in captured(graph) if name in constants}
        for inner in graph.node:
            _rename(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)
        for name, own in names.items():
            graph.node.insert(0, helper.make_node("Constant", [], [own], value=constants[name]))
        for inner in graph.node:
            take_in(inner, constants)


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node and the graphs inside it read and make."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in subgraphs(node):
        # Names made further inside are others: ONNX lets none be used twice along the way.
        for inner in graph.node:
            _rename(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)
