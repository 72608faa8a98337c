from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import GraphProto, ValueInfoProto, helper

from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import nodes_needed
from mollikit_onnx.graphs.tensor import Dimension, Tensor

# (states, slices of the sequences) -> (next states, results), all inside the Scan's body.
Step = Callable[[list[Tensor], list[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]


def enclosed(
    inner: GraphBuilder, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> GraphProto:
    """Return what was emitted in an inner builder as a graph with these inputs and outputs."""
    # An output must be made inside, and be there once.
    own = [inner.op("Identity", x) for x in outputs]
    nodes, _ = nodes_needed(inner.nodes, [x.name for x in own])
    return helper.make_graph(nodes, name, [declared(x) for x in inputs], [declared(x) for x in own])


def declared(x: Tensor) -> ValueInfoProto:
    """Return the declaration of a tensor."""
    return helper.make_tensor_value_info(x.name, x.dtype, x.shape)


def scan(
    states: Sequence[Tensor],
    sequences: Sequence[Tensor],
    step: Step,
    *,
    backwards: bool = False,
    axis: int = 0,
) -> tuple[list[Tensor], list[Tensor]]:
    """Carry states along an axis of the sequences.

    Parameters
    ----------
    states : sequence of Tensor
        Where they start; a step keeps their shapes.
    sequences : sequence of Tensor
        At least one, all of one length; that must not be 0, which ONNX Runtime refuses.
    step : callable
    backwards : bool
        Go from the end to the beginning.
    axis : int
        Of the sequences, and of the stacked results.

    Returns
    -------
    list of Tensor, list of Tensor
        The last states, and the results of all steps, each at the place of its slices.
    """
    graph = sequences[0].graph
    inner = graph.inner()
    formal = [formal_input(inner, x, x.shape) for x in states]
    slices = [formal_input(inner, x, without_axis(x.shape, axis)) for x in sequences]
    after, results = step(formal, slices)
    body = enclosed(inner, inner.fresh(f"{graph.scope}/step"), [*formal, *slices], [*after, *results])
    outputs = graph.ops(
        len(states) + len(results),
        "Scan",
        *states,
        *sequences,
        body=body,
        num_scan_inputs=len(sequences),
        scan_input_axes=[axis] * len(sequences),
        scan_input_directions=[int(backwards)] * len(sequences),
        scan_output_axes=[axis] * len(results),
        scan_output_directions=[int(backwards)] * len(results),
    )
    length = None if sequences[0].shape is None else sequences[0].shape[axis]
    shapes = [x.shape for x in states]
    shapes += [None if r.shape is None else (*r.shape[:axis], length, *r.shape[axis:]) for r in results]
    made = [
        graph.declare(y.name, helper.make_tensor_type_proto(x.dtype, shape))
        for y, x, shape in zip(outputs, [*states, *results], shapes, strict=True)
    ]
    return made[: len(states)], made[len(states) :]


def formal_input(inner: GraphBuilder, x: Tensor, shape: tuple[Dimension, ...] | None) -> Tensor:
    """Return a new tensor of the type of x and another shape, for an input of a graph inside."""
    return inner.declare(inner.fresh(f"{inner.scope}/formal"), helper.make_tensor_type_proto(x.dtype, shape))


def without_axis(shape: tuple[Dimension, ...] | None, axis: int) -> tuple[Dimension, ...] | None:
    """Return a shape but for one axis."""
    return None if shape is None else (*shape[:axis], *shape[axis + 1 :])
