"""The graph of a block: from one clean input and an address to moments of the gradients around it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper

from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import names_made, without_weights
from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.resident.design import LIVE, Design, Inputs, held_name
from mollikit_onnx.resident.points import points, repeated
from mollikit_onnx.resident.reduction import double, first_moments, means_of, second_moments
from mollikit_onnx.resident.views import seen


@dataclass(frozen=True)
class Gradient:
    """A graph of gradients, with names: of its inputs, coordinates and overridden weights; of its outputs.

    There are coordinates, and outputs by leaf and last of the values where there are any, for each target.
    """

    model: ModelProto
    coordinates: Sequence[str]
    outputs: Sequence[Sequence[str]]
    weights: Collection[str]


def block_graph(gradient: Gradient, design: Design) -> ModelProto:
    """Put the drawing of points before a graph of gradients, and their reduction behind it.

    Parameters
    ----------
    gradient : Gradient
        Left as it is.
    design : Design

    Returns
    -------
    onnx.ModelProto
        A graph whose outputs, in order, are the parts of the moments of each leaf's gradient, of each view
        and of the values, for each target in turn. What is held, and coordinates, come as one row.
    """
    source = gradient.model.graph
    types = {value.name: value.type for value in (*source.input, *source.output)}
    taken = {*types, *(weight.name for weight in source.initializer)}
    taken.update(name for node in source.node for name in names_made(node))
    graph = GraphBuilder({o.domain: o.version for o in gradient.model.opset_import}, types, {}, taken)
    graph.scope = "mollikit.block"
    inputs = Inputs(graph)
    made = points(inputs, design)
    own = {weight.name for weight in source.initializer} | {*gradient.weights}
    for value in source.input:
        if value.name in own or value.name in made:
            continue
        held = graph.tensor(value.name)
        row = None if held.shape is None else [1, *held.shape[1:]]
        given = repeated(inputs, inputs.take(held_name(value.name), held.dtype, row))
        made[value.name] = _in_order(given) if value.name in gradient.coordinates else given
    graph.nodes.extend(helper.make_node("Identity", [x.name], [name]) for name, x in made.items())
    before, graph.nodes = graph.nodes, []
    outputs: list[Tensor] = []
    for names in gradient.outputs:
        outputs.extend(_reduced(inputs, design, [graph.tensor(name) for name in names]))

    result = without_weights(gradient.model)
    whole = result.graph
    del whole.node[:], whole.input[:], whole.output[:]
    whole.node.extend([*before, *source.node, *graph.nodes])
    whole.input.extend(value for value in source.input if value.name in gradient.weights)
    whole.input.extend(helper.make_value_info(name, kind) for name, kind in inputs.declared.items())
    whole.output.extend(helper.make_tensor_value_info(x.name, x.dtype, None) for x in outputs)
    whole.value_info.extend(value for value in (*source.input, *source.output) if value.name in made)
    read = {name for node in (*before, *graph.nodes) for name in node.input}
    whole.initializer.extend([*source.initializer, *graph.constant_protos(read)])
    whole.sparse_initializer.extend(source.sparse_initializer)
    return result


def _in_order(coordinates: Tensor) -> Tensor:
    """Coordinates (rows, rank) whose first axis says the row."""
    rows = coordinates.dims(0, 1).counted().op("Unsqueeze", [1])
    behind = coordinates.op("Slice", [1], [np.iinfo(np.int64).max], [1])
    return rows.op("Concat", behind, axis=1)


def _reduced(inputs: Inputs, design: Design, answers: Sequence[Tensor]) -> Iterator[Tensor]:
    """Give the parts of the moments of one target's gradients by leaf, of their views and of the values."""
    live, size = inputs.number(LIVE), design.group_size

    def counted(rows: Tensor) -> Tensor:
        return rows.op("Slice", [0], live, [0]).shaped((None, *(rows.shape or ())[1:]))

    def in_groups(rows: Tensor) -> Tensor:
        """Points (groups, points, ...)."""
        behind = [length for length in (rows.shape or ())[1:] if isinstance(length, int)]
        return rows.reshaped(-1, size, *behind)

    def means(rows: Tensor) -> Tensor:
        return counted(rows if size == 1 else means_of(in_groups(rows)))

    points = [double(answer) for answer in answers]
    leaves = [x.reshaped(-1, *leaf.shape) for x, leaf in zip(points, design.leaves, strict=False)]
    values = points[len(leaves) :]
    if not design.second:  # views are linear, and there are fewer means than points
        leaves, values = [means(x) for x in leaves], [means(x) for x in values]
    gradients = dict(zip((leaf.name for leaf in design.leaves), leaves, strict=True))
    seen_too = [seen(view, gradients if design.named else leaves[0]) for view in design.views]
    for x in (*leaves, *seen_too, *values):
        moments = second_moments(counted(in_groups(x))) if design.second else first_moments(x)
        yield from (moments[part] for part in design.moments.parts())
