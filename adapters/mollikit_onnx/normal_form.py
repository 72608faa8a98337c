from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    helper,
    inliner,
    numpy_helper,
    version_converter,
)

from mollikit_onnx.errors import OpsetError
from mollikit_onnx.folding import SMALL, folded
from mollikit_onnx.pruning import without_weights

# Rules are written for this version and later: from 18 on, reductions, Pad and Split take their
# parameters as inputs. The upper ends are what onnxruntime 1.31 runs.
LOWEST_OPSET, HIGHEST_OPSET = 18, 26
LOWEST_IR, HIGHEST_IR = 8, 13
# Before, onnx infers one window too many where ceil_mode lets the last one start in the pads.
_CEIL_OPSET = 22


@dataclass(frozen=True)
class NormalForm:
    """A model as the transform works on it.

    Attributes
    ----------
    model : ModelProto
        Without local functions, of opset `LOWEST_OPSET` or later, shapes inferred, integer
        constants folded, initializers taken out.
    weights : dict
        The initializers by name; those of the caller's model are not copied.
    types : dict
        Types of all tensors that could be inferred.
    values : dict
        Small constants.
    """

    model: ModelProto
    weights: dict[str, TensorProto]
    types: dict[str, TypeProto]
    values: dict[str, NDArray[Any]]


def normal_form(model: ModelProto, variables: Collection[str]) -> NormalForm:
    """Bring a model to its normal form; the named tensors are variables, never constants."""
    skeleton, weights = _separated(model)
    if model.functions:
        skeleton = inliner.inline_local_functions(skeleton)
    skeleton = _at_known_opset(skeleton)
    # The weights stand in as inputs, so what comes back may hold small ones that a pass has added.
    weights.update((w.name, w) for w in skeleton.graph.initializer)
    overridable = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    values = {
        name: numpy_helper.to_array(weight)
        for name, weight in weights.items()
        if name not in variables and name not in overridable and _is_small(weight)
    }
    skeleton = folded(skeleton, weights, values, variables)
    inputs = {value.name for value in model.graph.input}
    if model.ir_version < 4:
        inputs -= set(weights)
    types = {tensor.name: tensor.type for tensor in skeleton.graph.input}
    types |= {tensor.name: tensor.type for tensor in skeleton.graph.value_info}
    types |= {tensor.name: tensor.type for tensor in skeleton.graph.output}
    types |= {name: helper.make_tensor_type_proto(w.data_type, w.dims) for name, w in weights.items()}
    kept = [value for value in skeleton.graph.input if value.name in inputs]
    del skeleton.graph.input[:], skeleton.graph.initializer[:]
    skeleton.graph.input.extend(kept)
    skeleton.ir_version = min(max(model.ir_version, LOWEST_IR), HIGHEST_IR)
    return NormalForm(skeleton, weights, types, values)


def _rounds_up(node: NodeProto) -> bool:
    return any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute)


def _is_small(weight: TensorProto) -> bool:
    return int(np.prod(weight.dims)) <= SMALL and weight.data_location != TensorProto.EXTERNAL


def _separated(model: ModelProto) -> tuple[ModelProto, dict[str, TensorProto]]:
    skeleton = without_weights(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    declared = {value.name for value in model.graph.input}
    for name, weight in weights.items():
        if _is_small(weight):
            skeleton.graph.initializer.add().CopyFrom(weight)
        elif name not in declared:
            skeleton.graph.input.append(helper.make_tensor_value_info(name, weight.data_type, weight.dims))
    skeleton.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for node in skeleton.graph.node:
        # The default domain has two spellings.
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    skeleton.ir_version = max(model.ir_version, 4)
    return skeleton, weights


def _at_known_opset(model: ModelProto) -> ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), None)
    if version is None:
        raise OpsetError("the model imports no version of the default operator set; add one to opset_import")
    lowest = _CEIL_OPSET if any(_rounds_up(node) for node in model.graph.node) else LOWEST_OPSET
    if lowest <= version <= HIGHEST_OPSET:
        return model
    wanted = lowest if version < lowest else HIGHEST_OPSET
    try:
        converted = version_converter.convert_version(model, wanted)
    except Exception as error:
        raise OpsetError(
            f"the model is of opset {version}, and onnx's version converter cannot bring it to {wanted}: "
            f"{error}. Export it again at opset {wanted}"
        ) from error
    # The converter writes down what it infers at the old version.
    del converted.graph.value_info[:], converted.graph.output[:]
    if lowest != _CEIL_OPSET:
        converted.graph.value_info.extend(model.graph.value_info)
    converted.graph.output.extend(model.graph.output)
    return converted
