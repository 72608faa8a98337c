from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from mollikit_onnx.errors import UnknownTensorError


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that a node holds in its attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def names_read(node: NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads: its inputs, and what its subgraphs capture from outside."""
    yield from (name for name in node.input if name)
    yield from names_captured(node)


def names_captured(node: NodeProto) -> list[str]:
    """Names of the tensors that a node's subgraphs read from outside, each once."""
    return list(dict.fromkeys(name for graph in subgraphs(node) for name in captured(graph)))


def captured(graph: GraphProto) -> Iterator[str]:
    """Names that a graph reads from outside, some more than once."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        yield from (name for name in names_read(node) if name not in own)
        own.update(node.output)
    yield from (value.name for value in graph.output if value.name not in own)


def names_made(node: NodeProto) -> Iterator[str]:
    """Names of the tensors that a node makes: its outputs, and those of the nodes in its subgraphs."""
    yield from node.output
    for graph in subgraphs(node):
        for inner in all_nodes(graph):
            yield from inner.output


def nodes_needed(nodes: Sequence[NodeProto], names: Collection[str]) -> tuple[list[NodeProto], set[str]]:
    """Nodes, in their order, that the named tensors depend on, and all the tensors they depend on."""
    needed = set(names)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(names_read(node))
    kept.reverse()
    return kept, needed


def pruned(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """Return the model with the named outputs alone, and without the nodes and weights they do not need.

    The inputs stay as they are, so that a caller feeds every pruning of one model alike.

    Parameters
    ----------
    model : onnx.ModelProto
        Left as it is.
    outputs : sequence of str
        Names of outputs of the model, in the order wanted.

    Returns
    -------
    onnx.ModelProto
        A new model.

    Raises
    ------
    UnknownTensorError
        If a name is not an output of the model.

    Examples
    --------
    >>> import onnx.parser
    >>> model = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 20]>
    ...     two (float[N] x) => (float[N] a, float[N] b) { a = Sin(x)  b = Cos(x) }''')
    >>> [node.op_type for node in pruned(model, ["b"]).graph.node]
    ['Cos']
    """
    declared = {value.name: value for value in model.graph.output}
    for name in outputs:
        if name not in declared:
            raise UnknownTensorError("outputs", name, declared)
    nodes, needed = nodes_needed(model.graph.node, outputs)
    result = without_weights(model)
    graph = result.graph
    inputs = {value.name for value in graph.input}
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.extend(declared[name] for name in outputs)
    graph.value_info.extend(value for value in model.graph.value_info if value.name in needed)
    graph.initializer.extend(w for w in model.graph.initializer if w.name in needed or w.name in inputs)
    graph.sparse_initializer.extend(w for w in model.graph.sparse_initializer if w.values.name in needed)
    return result


def without_weights(model: ModelProto) -> ModelProto:
    """Copy a model except its initializers, field by field: a model of many GB is never copied whole."""
    copy = ModelProto()
    _copy_fields(model, copy, {"graph"})
    _copy_fields(model.graph, copy.graph, {"initializer", "sparse_initializer"})
    return copy


def _copy_fields(source: ModelProto | GraphProto, target: ModelProto | GraphProto, but: set[str]) -> None:
    for field, content in source.ListFields():
        if field.name in but:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(content)
        else:
            setattr(target, field.name, content)
