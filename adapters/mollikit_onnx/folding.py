from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from mollikit_onnx.einsum_shapes import corrected
from mollikit_onnx.errors import ModelError
from mollikit_onnx.subgraphs import take_in, taken_branch

# In elements: larger constants are not computed with, and stay outside of the passes that serialise
# the model (2 GB at most).
SMALL = 4096
_FOLDED = frozenset(
    {
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Range",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def folded(
    model: ModelProto,
    weights: dict[str, TensorProto],
    values: dict[str, NDArray[Any]],
    variables: Collection[str],
) -> ModelProto:
    """Infer shapes and fold the integer arithmetic on them, in turns, until nothing changes."""
    # A float initializer may be overridden later on, so what is computed from one stays a computation.
    foldable = {name for name, array in values.items() if not np.issubdtype(array.dtype, np.inexact)}
    while True:
        inside = {name: weights[name] for name in foldable if name in weights}
        for node in model.graph.node:
            take_in(node, inside)
        model = with_types(model)
        static = {
            value.name: shape
            for value in [*model.graph.input, *model.graph.value_info]
            if (shape := _static_shape(value.type)) is not None
        }
        static |= {name: tuple(weight.dims) for name, weight in weights.items()}
        kept: list[NodeProto] = []
        changed = False
        for node in model.graph.node:
            if node.op_type == "If" and node.input[0] in foldable and values[node.input[0]].size == 1:
                branch = taken_branch(node, values[node.input[0]].item())
                if branch is not None:
                    changed = True
                    kept += branch[0]
                    _join(model, branch[1], weights, values, foldable)
                    continue
            folded = None
            if node.op_type in _FOLDED and not node.domain and node.output[0] not in variables:
                folded = _fold(node, values, foldable, static)
            if folded is None or folded.size > SMALL:
                kept.append(node)
                continue
            changed = True
            constant = numpy_helper.from_array(folded, node.output[0])
            _join(model, [constant], weights, values, foldable)
        if not changed:
            return model
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def with_types(model: ModelProto) -> ModelProto:
    """Infer shapes and types as far as onnx can.

    Raises
    ------
    ModelError
        A node contradicts itself, such as one with fewer inputs than its operator needs.
    """
    done: set[str] = set()
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        while corrected(model, inferred, done):
            inferred = shape_inference.infer_shapes(model, data_prop=True)
        return inferred
    except shape_inference.InferenceError as error:
        raise ModelError(f"the model is not valid: {error}") from error


def _join(
    model: ModelProto,
    constants: Sequence[TensorProto],
    weights: dict[str, TensorProto],
    values: dict[str, NDArray[Any]],
    foldable: set[str],
) -> None:
    """Let constants that came up take part."""
    model.graph.initializer.extend(constants)
    for constant in constants:
        weights[constant.name] = constant
        if math.prod(constant.dims) <= SMALL:
            values[constant.name] = numpy_helper.to_array(constant)
            foldable.add(constant.name)


def _static_shape(kind: TypeProto) -> tuple[int, ...] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def _fold(
    node: NodeProto,
    values: dict[str, NDArray[Any]],
    foldable: set[str],
    static: dict[str, tuple[int, ...]],
) -> NDArray[Any] | None:
    if node.op_type in ("Shape", "Size") and node.input[0] in static:
        shape = np.array(static[node.input[0]], np.int64)
        if node.op_type == "Size":
            return np.array(shape.prod(), np.int64)
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return shape[slice(bounds.get("start"), bounds.get("end"))]
    if not all(name in foldable for name in node.input if name):
        return None
    feeds = {name: values[name] for name in node.input if name}
    if node.op_type in ("ConstantOfShape", "Expand", "Range") and not _stays_small(node, feeds):
        return None
    (result,) = ReferenceEvaluator(node).run(None, feeds)
    return np.asarray(result)


def _stays_small(node: NodeProto, feeds: dict[str, NDArray[Any]]) -> bool:
    operands = [feeds[name] for name in node.input]
    if node.op_type == "Range":
        if any(operand.ndim for operand in operands):
            return False
        start, limit, delta = (float(operand) for operand in operands)
        return delta != 0 and abs((limit - start) / delta) <= SMALL
    return float(np.prod(operands[-1].astype(float))) <= SMALL
