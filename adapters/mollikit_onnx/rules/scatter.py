from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.origins import added_up, numbered
from mollikit_onnx.rules.reduction import products_of_others


class Places:
    """Where a scatter writes: the same indices read as well."""

    def __init__(self, node: Node) -> None:
        self._op_type = node.proto.op_type
        self._indices = node.inputs[1]
        self._axis = {"axis": node.attribute("axis")} if self._op_type == "ScatterElements" else {}

    def write(self, into: Tensor, updates: Tensor, reduction: str = "none") -> Tensor:
        """Write the updates into a tensor."""
        return into.op(self._op_type, self._indices, updates, reduction=reduction, **self._axis)

    def read(self, x: Tensor) -> Tensor:
        """Read a tensor where the updates go."""
        return x.op(self._op_type.replace("Scatter", "Gather"), self._indices, **self._axis)


@rule("ScatterElements", "ScatterND", since=16)
def scattered(node: Node, g: Tensor) -> Sent:
    """What was overwritten has no cotangent, and the updates have theirs; ONNX forbids equal indices here."""
    places, updates = Places(node), node.inputs[2]
    reduction = node.attribute("reduction")
    if reduction == "none":
        return [places.write(g, updates.zeros()), None, places.read(g)]
    if reduction == "add":
        return [g, None, places.read(g)]
    return _multiplied(node, places, g) if reduction == "mul" else _extremum(node, places, g)


def _multiplied(node: Node, places: Places, g: Tensor) -> Sent:
    """Each factor of y, of the data or an update, has g times the product of the other factors."""
    data, _, updates = node.inputs

    def joined(x: Tensor, op_type: str) -> Tensor:
        by_product = op_type == "ReduceProd"
        into = data if by_product else data.zeros()
        return places.read(places.write(into, x, "mul" if by_product else "add"))

    factor = places.write(g.like(1).expanded_like(data), updates, "mul")
    return [g * factor, None, places.read(g) * products_of_others(updates, joined)]


def _extremum(node: Node, places: Places, g: Tensor) -> Sent:
    """The data and the updates that equal y share its cotangent."""
    data, _, updates = node.inputs
    of_data = data.op("Equal", node.y).op("Cast", to=g.dtype)
    of_updates = updates.op("Equal", places.read(node.y)).op("Cast", to=g.dtype)
    share = g / places.write(of_data, of_updates, "add")
    return [share * of_data, None, places.read(share) * of_updates]


@rule("TensorScatter")
def tensor_scatter(node: Node, g: Tensor) -> Sent:
    """What was overwritten has no cotangent, and the updates have theirs."""
    past, update = node.inputs[:2]
    # The operator itself tells which update, of 0, 1, ..., an element of y comes from.
    nowhere = g.graph.scalar(-1, TensorProto.INT64).op("Expand", past.dims())
    origin = node.again(nowhere, numbered(update))
    return [g.where(origin.op("Equal", -1)), added_up(g, origin, update, spare=1)]
