from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from mollikit_onnx.errors import OpsetError
from mollikit_onnx.graphs.pruning import all_nodes
from mollikit_onnx.normal_form.validity import elements


def mended(converted: ModelProto, model: ModelProto, version: int) -> ModelProto:
    """Put right, in place, where onnx's version converter changes what operators compute.

    Until opset 10, resizing put the first elements over each other and rounded down, or up where an axis
    shrinks; onnx leaves the later default, which puts the ends over each other.

    Parameters
    ----------
    converted : ModelProto
        What onnx's converter made.
    model : ModelProto
        The model it was made from.
    version : int
        The operator set of the model.

    Raises
    ------
    OpsetError
        If an operator has a meaning that the later ones cannot express.
    """
    old = {node.output[0]: node.op_type for node in all_nodes(model.graph) if node.output}
    if version < 13 and "Hardmax" in old.values():
        raise OpsetError(
            f"the model is of opset {version}, and onnx's version converter makes another function of its "
            "Hardmax. Export it again at opset 13 or later"
        )
    if version < 21 <= max(o.version for o in converted.opset_import if not o.domain) and (
        "GroupNormalization" in old.values()
    ):
        raise OpsetError(
            f"the model is of opset {version}, where GroupNormalization has a scale for each group, and "
            "onnx's version converter takes them for those of channels. Export it again at opset 22"
        )
    if version < 11:
        known = _constants(converted)
        for node in all_nodes(converted.graph):
            if node.op_type == "Resize" and old.get(node.output[0]) in ("Resize", "Upsample"):
                grows = old[node.output[0]] == "Upsample"
                _as_before(node, None if grows else known.get(node.input[2]), grows=grows)
    return converted


def _as_before(node: NodeProto, scales: NDArray[Any] | None, *, grows: bool) -> None:
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    if mode != b"nearest":
        return
    shrinks = scales is not None and bool((scales <= 1).all())
    if not grows and not shrinks and (scales is None or not (scales >= 1).all()):
        raise OpsetError(
            f"Resize {node.name or node.output[0]!r} of opset 10 rounds up along the axes that shrink and "
            "down along the others; no later one can be told so. Export the model again at opset 11 or later"
        )
    node.attribute.append(helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor"))


def _constants(model: ModelProto) -> dict[str, NDArray[Any]]:
    values = {tensor.name: elements(tensor) for tensor in model.graph.initializer}
    for node in all_nodes(model.graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                values[node.output[0]] = elements(attribute.t)
    return values
