from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.dimensions import complete
from mollikit_onnx.graphs.subgraphs import take_in, taken_branch
from mollikit_onnx.normal_form.einsum_shapes import corrected, restored

# In elements: larger constants are not computed with, and stay outside of the passes that serialise
# the model (2 GB at most).
SMALL = 4096
_FOLDED = {"Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand"}
_FOLDED |= {"Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min"}
_FOLDED |= {"Mod", "Mul", "Neg", "Not", "Or", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice"}
_FOLDED |= {"Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
# Of these, results are known as far as the sizes are that they pick from a shape.
_PICKING = frozenset({"Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"})
_OPEN = np.iinfo(np.int64).min  # in the place of a size that is not known


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
        known = {
            value.name: value.type.tensor_type.shape.dim
            for value in [*model.graph.input, *model.graph.value_info]
            if value.type.tensor_type.HasField("shape")
        }
        changed = False
        for node in model.graph.node:
            if node.op_type == "Reshape" and node.input[0] in known and node.output[0] in known:
                changed |= complete(known[node.output[0]], known[node.input[0]])
        shapes = {
            name: np.array([d.dim_value if d.HasField("dim_value") else _OPEN for d in dims], np.int64)
            for name, dims in known.items()
        }
        shapes |= {name: np.array(weight.dims, np.int64) for name, weight in weights.items()}
        picked: dict[str, NDArray[Any]] = {}
        kept: list[NodeProto] = []
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
                folded = _fold(node, values, foldable, shapes)
                if folded is None:
                    folded = _pick(node, values, foldable, shapes, picked)
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
        restored(model)
        restored(inferred)
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


def _pick(
    node: NodeProto,
    values: dict[str, NDArray[Any]],
    foldable: set[str],
    shapes: dict[str, NDArray[Any]],
    picked: dict[str, NDArray[Any]],
) -> NDArray[Any] | None:
    """Sizes taken from a shape of which not all is known; ``picked`` holds those that may be open."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        picked[node.output[0]] = _between(node, shapes[node.input[0]])
    sources = list(node.input) if node.op_type == "Concat" else [*node.input[:1]]
    places = [name for name in node.input if name and name not in sources]
    known = all(n in picked or n in foldable for n in sources) and all(n in foldable for n in places)
    if not known or node.op_type not in _PICKING:
        return None
    feeds = {name: picked[name] if name in picked else values[name] for name in (*sources, *places)}
    result = _computed(node, feeds)
    if result is not None:
        picked[node.output[0]] = result
    return None if result is None or _OPEN in result else result


def _between(node: NodeProto, shape: NDArray[Any]) -> NDArray[Any]:
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return shape[slice(bounds.get("start"), bounds.get("end"))]


def _fold(
    node: NodeProto, values: dict[str, NDArray[Any]], foldable: set[str], shapes: dict[str, NDArray[Any]]
) -> NDArray[Any] | None:
    if node.op_type in ("Shape", "Size") and _OPEN not in shapes.get(node.input[0], [_OPEN]):
        shape = shapes[node.input[0]]
        return np.array(shape.prod(), np.int64) if node.op_type == "Size" else _between(node, shape)
    if not all(name in foldable for name in node.input if name):
        return None
    feeds = {name: values[name] for name in node.input if name}
    if node.op_type in ("ConstantOfShape", "Expand", "Range") and not _stays_small(node, feeds):
        return None
    return _computed(node, feeds)


def _computed(node: NodeProto, feeds: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """What the reference computes; where it fails, in ways of its own, the runtime has its turn."""
    try:
        (result,) = ReferenceEvaluator(node).run(None, feeds)
    except Exception:
        return None
    return np.asarray(result)


def _stays_small(node: NodeProto, feeds: dict[str, NDArray[Any]]) -> bool:
    operands = [feeds[name] for name in node.input]
    if node.op_type == "Range":
        if any(operand.ndim for operand in operands):
            return False
        start, limit, delta = (float(operand) for operand in operands)
        return delta != 0 and abs((limit - start) / delta) <= SMALL
    return float(np.prod(operands[-1].astype(float))) <= SMALL
