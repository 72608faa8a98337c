from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, version_converter

from mollikit_onnx.activity import active_path, has_rule
from mollikit_onnx.errors import ModelError, OpsetError
from mollikit_onnx.graphs.pruning import all_nodes, names_made, subgraphs, without_weights
from mollikit_onnx.graphs.subgraphs import make_names_distinct
from mollikit_onnx.normal_form.conversion import mended
from mollikit_onnx.normal_form.declared import without_stale
from mollikit_onnx.normal_form.expansions import standardised
from mollikit_onnx.normal_form.folding import SMALL, folded, with_types
from mollikit_onnx.normal_form.functions import alike, expanded, inlined
from mollikit_onnx.normal_form.sequences import without_sequences
from mollikit_onnx.normal_form.validity import check_names, check_nodes, elements, left_over
from mollikit_onnx.registry import is_constant_by_law

# Rules are written for this version and later: from 18 on, reductions, Pad and Split take their
# parameters as inputs. The upper ends are what onnxruntime 1.31 runs.
LOWEST_OPSET, HIGHEST_OPSET = 18, 26
LOWEST_IR, HIGHEST_IR = 8, 13
# Before, onnx infers one window too many where ceil_mode lets the last one start in the pads.
_CEIL_OPSET = 22
# Before, Scan had a batch axis.
_SCAN_OPSET = 9
# Of operators that onnxruntime has in the default domain and ONNX has not: its converter refuses them there.
_SET_ASIDE = "mollikit.set_aside"
# From these versions on, onnxruntime finds neither a kernel nor the body of an operator.
_WITHOUT_KERNEL = {"Swish": 25}
# Function bodies within function bodies, and graphs within graphs.
DEEPEST_BODY = 8
DEEPEST_GRAPH = 16
_UNKNOWN = TypeProto()


@dataclass(frozen=True)
class NormalForm:
    """A model as the transform works on it.

    Attributes
    ----------
    model : ModelProto
        Without local functions and without operators between ``wrt`` and ``of`` that have a function
        body but no rule, of opset `LOWEST_OPSET` or later, shapes inferred, integer
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


def normal_form(
    model: ModelProto, wrt: Collection[str], of: Collection[str], opset: int | None = None
) -> NormalForm:
    """Bring a model to its normal form; ``wrt`` and ``of`` are variables, never constants."""
    variables = {*wrt, *of}
    _check_depth(model)
    check_nodes(model)
    skeleton, weights = _separated(model)
    check_names(skeleton.graph)
    skeleton = inlined(skeleton)
    for node in all_nodes(skeleton.graph):
        # The default domain has two spellings.
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    skeleton = _at_known_opset(_without_foreign(skeleton), opset)
    _check_depth(skeleton)
    make_names_distinct(skeleton.graph)
    # The weights stand in as inputs, so what comes back may hold small ones that a pass has added.
    weights.update((w.name, w) for w in skeleton.graph.initializer)
    overridable = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    values = {
        name: elements(weight)
        for name, weight in weights.items()
        if name not in variables and name not in overridable and _is_small(weight)
    }
    inferred = with_types(without_stale(skeleton))
    standardised(skeleton, _types(inferred, weights), weights, values, wrt, of)
    skeleton = folded(skeleton, weights, values, variables)
    if without_sequences(skeleton, _types(skeleton, weights), values):
        skeleton = folded(skeleton, weights, values, variables)
    for _ in range(DEEPEST_BODY):
        written_out = expanded(skeleton, _types(skeleton, weights), _obstacle(skeleton, wrt, of))
        if written_out is None:
            break
        skeleton = folded(written_out, weights, values, variables)
    inputs = {value.name for value in model.graph.input}
    if model.ir_version < 4:
        inputs -= set(weights)
    types = _types(skeleton, weights)
    kept = [value for value in skeleton.graph.input if value.name in inputs]
    del skeleton.graph.input[:], skeleton.graph.initializer[:]
    skeleton.graph.input.extend(kept)
    skeleton.ir_version = min(max(model.ir_version, LOWEST_IR), HIGHEST_IR)
    return NormalForm(skeleton, weights, types, values)


def _types(skeleton: ModelProto, weights: dict[str, TensorProto]) -> dict[str, TypeProto]:
    graph = skeleton.graph
    types = {tensor.name: tensor.type for tensor in (*graph.input, *graph.value_info, *graph.output)}
    return types | {name: helper.make_tensor_type_proto(w.data_type, w.dims) for name, w in weights.items()}


def _obstacle(skeleton: ModelProto, wrt: Collection[str], of: Collection[str]) -> Callable[[NodeProto], bool]:
    """Choose the nodes between wrt and of that have no rule."""
    types = _types(skeleton, {})
    opsets = {opset.domain: opset.version for opset in skeleton.opset_import}

    def dtype(name: str) -> int:
        return types.get(name, _UNKNOWN).tensor_type.elem_type

    _, path = active_path(skeleton.graph.node, wrt, of, dtype, opsets)
    between = {name for node in path for name in names_made(node)}

    def chosen(node: NodeProto) -> bool:
        mine = not between.isdisjoint(node.output)
        return mine and not has_rule(node, opsets) and not is_constant_by_law(node.domain, node.op_type)

    return chosen


def _without_foreign(model: ModelProto) -> ModelProto:
    """Write out by their function bodies the operators that onnxruntime does not run."""
    version = _opset(model)

    def foreign(node: NodeProto) -> bool:
        if node.domain or not defs.has(node.op_type):
            return False
        newer = version > HIGHEST_OPSET and defs.get_schema(node.op_type).since_version > HIGHEST_OPSET
        return newer or version >= _WITHOUT_KERNEL.get(node.op_type, version + 1)

    for _ in range(DEEPEST_BODY):
        if not any(foreign(node) for node in all_nodes(model.graph)):
            break
        inferred = with_types(model)
        written_out = expanded(inferred, _types(inferred, {}), foreign)
        if written_out is None:
            break
        model = written_out
    return model


def _opset(model: ModelProto) -> int:
    versions = (opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    version = next(versions, None)
    if version is None and any(not node.domain for node in all_nodes(model.graph)):
        raise OpsetError("the model imports no version of the default operator set; add one to opset_import")
    if version is None:
        model.opset_import.add(domain="", version=HIGHEST_OPSET)
    return int(version or HIGHEST_OPSET)


def _check_depth(model: ModelProto) -> None:
    graphs = [model.graph]
    for _ in range(DEEPEST_GRAPH + 1):
        graphs = [inner for graph in graphs for node in graph.node for inner in subgraphs(node)]
    if graphs:
        raise ModelError(f"the model has graphs within graphs more than {DEEPEST_GRAPH} deep: export it flat")


def _rounds_up(node: NodeProto) -> bool:
    return any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute)


def _is_small(weight: TensorProto) -> bool:
    return math.prod(weight.dims) <= SMALL and weight.data_location != TensorProto.EXTERNAL


def _separated(model: ModelProto) -> tuple[ModelProto, dict[str, TensorProto]]:
    skeleton = without_weights(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    declared = {value.name for value in model.graph.input}
    for name, weight in weights.items():
        if weight.data_type not in TensorProto.DataType.values():
            raise ModelError(f"initializer {name!r} is of the unknown type {weight.data_type}")
        if any(size < 0 for size in weight.dims):
            raise ModelError(f"initializer {name!r} has the impossible shape {tuple(weight.dims)}")
        if _is_small(weight):
            skeleton.graph.initializer.add().CopyFrom(weight)
        elif name not in declared:
            skeleton.graph.input.append(helper.make_tensor_value_info(name, weight.data_type, weight.dims))
    skeleton.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    skeleton.ir_version = max(model.ir_version, 4)
    return skeleton, weights


def _at_known_opset(model: ModelProto, asked: int | None) -> ModelProto:
    version = _opset(model)
    lowest = _CEIL_OPSET if any(_rounds_up(node) for node in model.graph.node) else LOWEST_OPSET
    if asked is not None and not lowest <= asked <= HIGHEST_OPSET:
        raise OpsetError(
            f"opset {asked} is not one of those from {lowest} to {HIGHEST_OPSET} that this model can have"
        )
    wanted = asked or min(max(version, lowest), HIGHEST_OPSET)
    if version == wanted:
        return model
    if version > wanted and alike(model.graph, {"": version}, {"": wanted}):
        # Newer versions that only take more types.
        for opset in model.opset_import:
            opset.version = opset.version if opset.domain else wanted
        return model
    if version < _SCAN_OPSET and any(node.op_type == "Scan" for node in all_nodes(model.graph)):
        raise OpsetError(
            f"operator Scan of opset {version} runs over a batch, which later ones do not, and onnx's "
            f"converter takes no account of it. Export the model again at opset {wanted}"
        )
    for node in all_nodes(model.graph):
        if reason := left_over(node):
            raise OpsetError(f"operator {node.op_type}, node {node.name or node.output[0]!r}: {reason}")
        if not node.domain and not defs.has(node.op_type):
            node.domain = _SET_ASIDE
    model.opset_import.add(domain=_SET_ASIDE, version=1)
    try:
        converted = version_converter.convert_version(model, wanted)
    except Exception as error:
        raise OpsetError(
            f"the model is of opset {version}, and onnx's version converter cannot bring it to {wanted}: "
            f"{error}. Export it again at opset {wanted}"
        ) from error
    for node in all_nodes(converted.graph):
        node.domain = "" if node.domain == _SET_ASIDE else node.domain
    converted.opset_import.remove(helper.make_opsetid(_SET_ASIDE, 1))
    # The converter writes down what it infers at the old version.
    del converted.graph.value_info[:], converted.graph.output[:]
    if lowest != _CEIL_OPSET:
        converted.graph.value_info.extend(model.graph.value_info)
    converted.graph.output.extend(model.graph.output)
    return mended(converted, model, version)
