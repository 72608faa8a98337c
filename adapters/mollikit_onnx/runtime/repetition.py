from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto, NodeProto

from mollikit_onnx.graphs.pruning import all_nodes, names_read, subgraphs, without_weights
from mollikit_onnx.graphs.subgraphs import rename


def repeated(model: ModelProto, source: str, count: int) -> ModelProto:
    """Let a model answer about several values of one input; what does not depend on it is computed once.

    With the coordinates of a target as the input, and values and gradients as the outputs, that is one
    forward pass and as many reverse ones. What the reverse pass needs of the forward one alone, such as
    masks, is computed once too.

    Parameters
    ----------
    model : onnx.ModelProto
        Left as it is.
    source : str
        The input; of each copy of it and of every output the name is that of `copy_of`.
    count : int

    Returns
    -------
    onnx.ModelProto
        A new model.
    """
    result = without_weights(model)
    graph = result.graph
    graph.initializer.extend(model.graph.initializer)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    outputs = {value.name for value in graph.output}
    once, each, depending = _split(graph.node, source, outputs)
    taken = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
    taken.update(name for node in all_nodes(graph) for name in node.output)
    del graph.node[:]
    graph.node.extend(once)
    for k in range(count):
        names = {name: copy_of(name, k) for name in depending}
        taken.update(names.values())
        for node in each:
            copy = graph.node.add()
            copy.CopyFrom(node)
            copy.name = node.name and copy_of(node.name, k)
            copy.input[:] = [names.get(name, name) for name in node.input]
            copy.output[:] = [names.get(name, name) for name in node.output]
            for inner in subgraphs(copy):
                rename(inner, names, taken)
    for values, copied in ((graph.input, {source}), (graph.output, outputs), (graph.value_info, depending)):
        kept, copies = ([v for v in values if (v.name in copied) is wanted] for wanted in (False, True))
        del values[:]
        values.extend(kept)
        for k in range(count):
            for value in copies:
                values.add().CopyFrom(value)
                values[-1].name = copy_of(value.name, k)
    return result


def copy_of(name: str, k: int) -> str:
    """Name of the k-th copy of a tensor."""
    return f"mollikit.{k}/{name}"


def _split(
    nodes: Collection[NodeProto], source: str, outputs: Collection[str]
) -> tuple[list[NodeProto], list[NodeProto], set[str]]:
    """Nodes that do not depend on an input, nodes that do or make an output, and all that these make."""
    once, each, depending = [], [], {source}
    for node in nodes:
        if depending.isdisjoint(names_read(node)) and not any(name in outputs for name in node.output):
            once.append(node)
        else:
            each.append(node)
            depending.update(name for name in node.output if name)
    return once, each, depending
