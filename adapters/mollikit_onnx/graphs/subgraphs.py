from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import captured, subgraphs
from mollikit_onnx.graphs.tensor import Tensor


def make_names_distinct(graph: GraphProto) -> None:
    """Rename what the graphs inside a graph make wherever a name is there twice.

    onnx's version converter gives such names, and ONNX Runtime refuses them.
    """
    taken = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
    taken.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        for inner in subgraphs(node):
            rename(inner, {}, taken)


def rename(graph: GraphProto, outer: Mapping[str, str], taken: set[str]) -> None:
    """Rename, inside a node's graph, what it reads from outside, and what it makes under taken names."""
    names = dict(outer)
    for name in dict.fromkeys(_own(graph)):
        new, count = name, 1
        while new in taken:
            new, count = f"{name}.{count}", count + 1
        taken.add(new)
        names[name] = new
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs(node):
            rename(inner, names, taken)


def _own(graph: GraphProto) -> Iterator[str]:
    """Names that a graph makes itself."""
    yield from (value.name for value in graph.input)
    yield from (weight.name for weight in graph.initializer)
    yield from (weight.values.name for weight in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output if name)


@dataclass(frozen=True)
class Body:
    """A graph of a node, written out inside a builder.

    Attributes
    ----------
    inner : GraphBuilder
    nodes : list of NodeProto
        Under new names.
    outputs : list of Tensor
    """

    inner: GraphBuilder
    nodes: list[NodeProto]
    outputs: list[Tensor]

    @classmethod
    def of(cls, graph: GraphProto, inner: GraphBuilder, arguments: Sequence[Tensor] = ()) -> Body:
        """Write a graph out, its inputs replaced by the arguments."""
        names = {value.name: x.name for value, x in zip(graph.input, arguments, strict=True)}
        for weight in graph.initializer:
            names[weight.name] = inner.constant(numpy_helper.to_array(weight)).name
        if graph.sparse_initializer:
            raise ModelError(
                f"the graph {graph.name!r} inside a node has sparse initializers: make them dense"
            )
        known = {value.name: value.type for value in (*graph.value_info, *graph.output)}
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain and node.attribute[0].name == "value":
                names[node.output[0]] = inner.constant(numpy_helper.to_array(node.attribute[0].t)).name
                continue
            for name in node.output:
                names[name] = inner.fresh(f"{inner.scope}/{name}") if name else ""
                if name in known:
                    inner.declare(names[name], known[name])
            copy = NodeProto()
            copy.CopyFrom(node)
            _reread(copy, names)
            inner.adopt(copy)
        outputs = [inner.tensor(names.get(value.name, value.name)) for value in graph.output]
        return cls(inner, list(inner.nodes), outputs)


def _reread(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node reads and makes, and what the graphs inside it read from outside."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in subgraphs(node):
        own = set(_own(graph))
        outside = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            _reread(inner, outside)
        for value in graph.output:
            value.name = outside.get(value.name, value.name)


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
        _reread(inner, names)
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
            _reread(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)
        for name, own in names.items():
            graph.node.insert(0, helper.make_node("Constant", [], [own], value=constants[name]))
        for inner in graph.node:
            take_in(inner, constants)


def lasting(before: TypeProto, after: TypeProto) -> TypeProto:
    """What holds of a carried value in every round, from what holds before and after one."""
    kind = TypeProto()
    kind.CopyFrom(before)
    if not before.HasField("tensor_type") or not before.tensor_type.HasField("shape"):
        return kind
    dims, changed = kind.tensor_type.shape.dim, after.tensor_type.shape.dim
    if not after.tensor_type.HasField("shape") or len(dims) != len(changed):
        kind.tensor_type.ClearField("shape")
        return kind
    for dim, other in zip(dims, changed, strict=True):
        if dim != other:
            dim.Clear()
    return kind
