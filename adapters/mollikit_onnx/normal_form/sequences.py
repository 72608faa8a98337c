from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper


@dataclass(frozen=True)
class Pieces:
    """Equal pieces of a tensor along an axis, of which there may be any number."""

    x: str
    axis: int
    size: int
    keepdims: bool


@dataclass
class Known:
    """What is known of the sequences and optionals of a graph as its nodes pass by.

    Attributes
    ----------
    types, values : mapping
        Of the tensors, and of the constants among them.
    taken : set of str
        Names.
    members : dict
        Tensors of each sequence.
    held : dict
        What each optional holds.
    """

    types: Mapping[str, TypeProto]
    values: Mapping[str, NDArray[Any]]
    taken: set[str]
    members: dict[str, list[str] | Pieces] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    def position(self, node: NodeProto, place: int, default: int) -> int | None:
        """A position that a node is given, None where it is computed."""
        if len(node.input) <= place or not node.input[place]:
            return default
        value = self.values.get(node.input[place])
        return None if value is None else int(value.item())

    def fresh(self, stem: str) -> str:
        """Return a name that is not taken."""
        count = 0
        while f"{stem}.{count}" in self.taken:
            count += 1
        self.taken.add(f"{stem}.{count}")
        return f"{stem}.{count}"

    def constant(self, value: list[int] | int, stem: str) -> NodeProto:
        """Return a node that makes a constant of int64."""
        tensor = numpy_helper.from_array(np.array(value, np.int64))
        return helper.make_node("Constant", [], [self.fresh(f"{stem}/constant")], value=tensor)


Written = list[NodeProto] | None
Writer = Callable[[Known, NodeProto, dict[str, Any]], Written]
_WRITERS: dict[str, Writer] = {}


def _writes(op_type: str) -> Callable[[Writer], Writer]:
    def register(function: Writer) -> Writer:
        _WRITERS[op_type] = function
        return function

    return register


def without_sequences(
    model: ModelProto, types: Mapping[str, TypeProto], values: Mapping[str, NDArray[Any]]
) -> bool:
    """Write sequences and optionals of the main graph out as the tensors that they hold.

    What is read from a sequence at a constant position becomes that tensor itself; what is joined from one
    whose members are known becomes a Concat of these. What cannot be written out stays.

    Parameters
    ----------
    model : ModelProto
        Changed.
    types, values : mapping
        Of its tensors, and of the constants among them.

    Returns
    -------
    bool
        Whether anything was written out.
    """
    known = Known(types, values, {*types, *(name for node in model.graph.node for name in node.output)})
    nodes: list[NodeProto] = []
    changed = False
    for node in model.graph.node:
        if not node.domain:
            _record(known, node)
        writer = None if node.domain else _WRITERS.get(node.op_type)
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute} if writer else {}
        written = writer(known, node, given) if writer else None
        changed |= written is not None
        nodes.extend([NodeProto.FromString(node.SerializeToString())] if written is None else written)
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return changed


def _record(known: Known, node: NodeProto) -> None:
    """Note what a node makes of sequences and optionals."""
    x, y = node.input[0] if node.input else "", node.output[0]
    members = known.members.get(x)
    match node.op_type:
        case "SequenceConstruct" | "SequenceEmpty":
            known.members[y] = list(node.input)
        case "Identity":
            if members is not None:
                known.members[y] = members
            if x in known.held:
                known.held[y] = known.held[x]
        case "Optional" if x:
            known.held[y] = x
        case "SequenceInsert" if isinstance(members, list):
            place = known.position(node, 2, len(members))
            if place is not None and -len(members) <= place <= len(members):
                place += len(members) if place < 0 else 0
                known.members[y] = [*members[:place], node.input[1], *members[place:]]
        case "SequenceErase" if isinstance(members, list):
            place = known.position(node, 1, -1)
            if place is not None and -len(members) <= place < len(members):
                place %= len(members)
                known.members[y] = [*members[:place], *members[place + 1 :]]


@_writes("SplitToSequence")
def _split(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    x, axis = node.input[0], given.get("axis", 0)
    if len(node.input) < 2 or not node.input[1]:
        known.members[node.output[0]] = Pieces(x, axis, 1, bool(given.get("keepdims", 1)))
        return None
    sizes = known.values.get(node.input[1])
    if sizes is None:
        return None
    if sizes.ndim == 0:
        known.members[node.output[0]] = Pieces(x, axis, int(sizes), keepdims=True)
        return None
    # A Split beside it, of which only one of the two is needed in the end.
    parts = [known.fresh(f"{node.output[0]}/part") for _ in sizes]
    known.members[node.output[0]] = parts
    beside = helper.make_node("Split", list(node.input), parts, name=f"{node.name}/parts", axis=axis)
    return [NodeProto.FromString(node.SerializeToString()), beside]


@_writes("SequenceAt")
def _at(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    place, members = known.position(node, 1, 0), known.members.get(node.input[0])
    if place is None or members is None:
        return None
    y = node.output[0]
    if isinstance(members, list):
        if not -len(members) <= place < len(members):
            return None
        return [helper.make_node("Identity", [members[place]], [y], name=node.name)]
    if members.size == 1 and not members.keepdims:
        index = known.constant(place, y)
        gather = helper.make_node(
            "Gather", [members.x, index.output[0]], [y], name=node.name, axis=members.axis
        )
        return [index, gather]
    if place < 0 and members.size > 1:
        # The last piece may be shorter.
        return None
    start = place * members.size
    bounds = [start, start + members.size if place != -1 else np.iinfo(np.int64).max]
    limits = [known.constant([value], y) for value in (*bounds, members.axis)]
    names = [members.x, *(limit.output[0] for limit in limits)]
    return [*limits, helper.make_node("Slice", names, [y], name=node.name)]


@_writes("SequenceLength")
def _length(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    members = known.members.get(node.input[0])
    if isinstance(members, list):
        number = known.constant(len(members), node.output[0])
        return [number, helper.make_node("Identity", list(number.output), list(node.output), name=node.name)]
    if members is not None and members.size == 1:
        shape = known.fresh(f"{node.output[0]}/shape")
        axis = known.constant(members.axis, node.output[0])
        return [
            axis,
            helper.make_node("Shape", [members.x], [shape]),
            helper.make_node("Gather", [shape, axis.output[0]], list(node.output), name=node.name),
        ]
    return None


@_writes("ConcatFromSequence")
def _joined(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    members = known.members.get(node.input[0])
    if members is None or members == []:
        return None
    axis, new_axis = given["axis"], given.get("new_axis", 0)
    if isinstance(members, Pieces):
        # All pieces, along the axis where they were cut: the tensor itself.
        if members.axis == axis and members.keepdims != bool(new_axis):
            return [helper.make_node("Identity", [members.x], list(node.output), name=node.name)]
        return None
    nodes: list[NodeProto] = []
    if new_axis:
        place = known.constant([axis], node.output[0])
        nodes.append(place)
        raised = [known.fresh(f"{node.output[0]}/part") for _ in members]
        nodes += [
            helper.make_node("Unsqueeze", [x, place.output[0]], [part], name=part)
            for x, part in zip(members, raised, strict=True)
        ]
        members = raised
    return [*nodes, helper.make_node("Concat", members, list(node.output), name=node.name, axis=axis)]


@_writes("OptionalGetElement")
def _element(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    # Since opset 18 it also takes what is no optional, and gives it back.
    x = known.held.get(node.input[0], node.input[0])
    kind = known.types.get(x)
    if x in known.members:
        known.members[node.output[0]] = known.members[x]
    if kind is None or kind.HasField("optional_type"):
        return None
    return [helper.make_node("Identity", [x], list(node.output), name=node.name)]


@_writes("OptionalHasElement")
def _has_element(known: Known, node: NodeProto, given: dict[str, Any]) -> Written:
    if not node.input or node.input[0] not in known.held:
        return None
    value = numpy_helper.from_array(np.array(True))
    return [helper.make_node("Constant", [], list(node.output), name=node.name, value=value)]
