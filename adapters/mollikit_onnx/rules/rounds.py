from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import GraphProto, TypeProto, helper

from mollikit_onnx.accumulation import accumulate, add_to
from mollikit_onnx.activity import active_path
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import nodes_needed
from mollikit_onnx.graphs.recurrence import formal_input, without_axis
from mollikit_onnx.graphs.subgraphs import Body, lasting
from mollikit_onnx.graphs.tensor import FLOATS, Tensor
from mollikit_onnx.rules import Node


class Rounds:
    """The reverse of one step of a Scan, or of one round of a Loop.

    Carried values start a round and are computed anew by it; results are joined over all rounds.

    Parameters
    ----------
    node : Node
    body : Body
        The round, written out.
    before : sequence of Tensor
        Carried values that the round starts from, inside.
    wanted : sequence of bool
        Carried values whose cotangent is asked for where the node starts.
    first : int
        Place of the first carried value among the body's outputs.
    asked : sequence of Tensor
        What else the round reads and has its cotangent asked for, inside.

    Attributes
    ----------
    live : list of int
        Places of the carried values that depend on what is differentiated.
    carried : list of Tensor
        Cotangents of these as a round ends, to be given to it.
    """

    def __init__(
        self,
        node: Node,
        body: Body,
        before: Sequence[Tensor],
        wanted: Sequence[bool],
        first: int,
        asked: Sequence[Tensor],
    ) -> None:
        self._body, self._before, self._asked = body, before, asked
        self._after = body.outputs[first : first + len(before)]
        self._results = body.outputs[first + len(before) :]
        self.live = self._depending(wanted)
        for k in self.live:
            if before[k].dtype not in FLOATS:
                node.refuse(
                    f"it carries {node.proto.input[k + len(node.inputs) - len(before)]!r}, not floats"
                )
        self.carried = [formal_input(body.inner, before[k], before[k].shape) for k in self.live]

    def _depending(self, wanted: Sequence[bool]) -> list[int]:
        inner, live = self._body.inner, list(wanted)
        others = {x.name for x in self._asked}
        while True:
            sources = others | {x.name for x, is_live in zip(self._before, live, strict=True) if is_live}
            outputs = [y.name for y in self._body.outputs]
            reached, _ = active_path(
                self._body.nodes, sources, outputs, lambda name: inner.tensor(name).dtype, inner.opsets
            )
            now = [
                is_live or y.name in reached | sources for y, is_live in zip(self._after, live, strict=True)
            ]
            if now == live:
                return [k for k, is_live in enumerate(live) if is_live]
            live = now

    def pulled_back(self, results: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Cotangents of the live carried values as the round starts, and of what else was asked for.

        Parameters
        ----------
        results : sequence of Tensor or None
            Cotangents of the results, inside.
        """
        inner, found = self._body.inner, dict[str, Tensor]()
        for y, g in zip(self._results, results, strict=True):
            if g is not None:
                add_to(found, y, g)
        for k, g in zip(self.live, self.carried, strict=True):
            add_to(found, self._after[k], g)
        starts = [self._before[k] for k in self.live]
        accumulate(self._body.nodes, inner, [x.name for x in (*starts, *self._asked)], found)
        return [found.get(x.name) or x.zeros() for x in starts], [found.get(x.name) for x in self._asked]


def steady(
    graph: GraphProto, builder: GraphBuilder, given: Sequence[Tensor], fixed: Sequence[Tensor]
) -> list[TypeProto]:
    """What is known of carried values in every round of a Loop.

    Parameters
    ----------
    graph : GraphProto
        The body: its inputs are the fixed ones and the carried, its outputs one that is not carried, the
        carried and the results.
    builder : GraphBuilder
    given : sequence of Tensor
        The carried values at first.
    fixed : sequence of Tensor
    """
    kinds = [builder.type_of(x.name) for x in given]
    while True:
        inner = builder.inner()
        formal = [inner.declare(inner.fresh("vjp/carried"), kind) for kind in kinds]
        body = Body.of(graph, inner, [*fixed, *formal])
        after = [inner.type_of(y.name) for y in body.outputs[1 : 1 + len(given)]]
        now = [lasting(kind, other) for kind, other in zip(kinds, after, strict=True)]
        if now == kinds:
            return kinds
        kinds = now


def keep(node: Node, graph: GraphProto, place: int, kind: TypeProto) -> Tensor:
    """Let a forward node stack, in a further output, what an input of its body is in each round."""
    name = graph.input[place].name
    inside, outside = (node.graph.fresh(f"{node.graph.scope}/kept") for _ in range(2))
    graph.node.append(helper.make_node("Identity", [name], [inside]))
    graph.output.append(helper.make_value_info(inside, kind))
    for attribute in node.proto.attribute:
        if attribute.name in ("scan_output_axes", "scan_output_directions") and attribute.ints:
            attribute.ints.append(0)
    node.proto.output.append(outside)
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.tensor_type.shape.dim]
    shape = [None, *(d or None for d in dims)] if kind.tensor_type.HasField("shape") else None
    return node.graph.declare(outside, helper.make_tensor_type_proto(kind.tensor_type.elem_type, shape))


def keep_each(node: Node, graph: GraphProto, place: int, at: int) -> str:
    """Let a forward Loop collect what an input of its body is in each round, whatever its shapes.

    Parameters
    ----------
    node : Node
    graph : GraphProto
        The body.
    place : int
        Of its input.
    at : int
        Number of values that the Loop carries already.

    Returns
    -------
    str
        Name of a sequence, which is one more carried value.
    """
    element = graph.input[place].type.tensor_type.elem_type
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(element, None))
    name = graph.input[place].name
    start, into, inside, outside = (node.graph.fresh(f"{node.graph.scope}/kept") for _ in range(4))
    graph.input.append(helper.make_value_info(into, kind))
    graph.node.append(helper.make_node("SequenceInsert", [into, name], [inside]))
    graph.output.insert(1 + at, helper.make_value_info(inside, kind))
    before = next(k for k, other in enumerate(node.graph.nodes) if other is node.proto)
    node.graph.nodes.insert(before, helper.make_node("SequenceEmpty", [], [start], dtype=element))
    node.proto.input.append(start)
    node.proto.output.insert(at, outside)
    return node.graph.declare(outside, kind).name


def is_fixed(kind: TypeProto) -> bool:
    """Whether a carried value is known to have one shape in all rounds."""
    sizes = kind.tensor_type.shape.dim
    known = all(dim.HasField("dim_value") or dim.dim_param for dim in sizes)
    return kind.tensor_type.HasField("shape") and known


def needed_inside(inner: GraphBuilder, outputs: Sequence[Tensor]) -> set[str]:
    """Names that the outputs of a graph depend on."""
    return nodes_needed(inner.nodes, [x.name for x in outputs])[1]


@dataclass(frozen=True)
class Sliced:
    """A tensor that a Scan takes apart or joins along an axis, from the end where the direction is 1."""

    whole: Tensor
    axis: int
    direction: int

    @classmethod
    def of(cls, node: Node, side: str, k: int, whole: Tensor) -> Sliced:
        """Read how the k-th input or output is scanned."""
        axes, directions = (node.attribute(f"scan_{side}_{what}") for what in ("axes", "directions"))
        return cls(whole, axes[k] % whole.rank if axes else 0, directions[k] if directions else 0)

    def formal(self, inner: GraphBuilder) -> Tensor:
        """Return a slice of it, for an input of a body."""
        return formal_input(inner, self.whole, without_axis(self.whole.shape, self.axis))
