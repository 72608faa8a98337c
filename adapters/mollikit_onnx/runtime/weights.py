from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from mollikit.oracles import Array
from mollikit_onnx.graphs.pruning import names_read, nodes_needed
from mollikit_onnx.loading import array_of

_FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
# Inputs that hold a statistic or a setting, and nothing that was learnt; None stands for all of them.
_SETTINGS: dict[str, tuple[int, ...] | None] = {
    "BatchNormalization": (3, 4),
    "CenterCropPad": None,
    "Clip": (1, 2),
    "DequantizeLinear": (1,),
    "Dropout": (1, 2),
    "Equal": None,
    "Greater": None,
    "GreaterOrEqual": None,
    "Less": None,
    "LessOrEqual": None,
    "NonMaxSuppression": None,
    "OneHot": None,
    "Pad": (2,),
    "Pow": (1,),
    "QuantizeLinear": (1,),
    "Range": None,
    "Resize": (1, 2),
    "Upsample": (1,),
    "Where": None,
}
# A single number in one of these is a constant of the formula: an epsilon, a factor, a half.
_ARITHMETIC = frozenset({"Add", "Div", "Max", "Min", "Mod", "Mul", "Pow", "Sub"})


def learnt(model: ModelProto, output: str, folder: str | None = None) -> dict[str, Array]:
    """Weights that an output depends on, by name, read-only: of the initializers and the float Constants.

    ONNX does not say what was learnt. Left out are the mean and variance of BatchNormalization, settings of
    operators (the bounds of Clip, the scales of Resize), and single numbers in arithmetic. What lies in
    data files of the folder is mapped into memory, not read.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors |= {node.output[0]: tensor for node, tensor in _constants(model)}
    used = {
        name
        for node in nodes_needed(model.graph.node, [output])[0]
        for name in _weights_read(node, tensors)
        if tensors[name].data_type in _FLOATS
    }
    weights = {name: array_of(tensor, folder) for name, tensor in tensors.items() if name in used}
    for array in weights.values():
        array.flags.writeable = False
    return weights


def replacements(given: Mapping[str, Array], own: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays as ONNX Runtime takes them in the place of the weights of the same names.

    Raises
    ------
    ValueError
        There is no such weight, or a shape is not its own.
    """
    for name, array in given.items():
        if name not in own:
            near = get_close_matches(name, own, n=5) or list(own)[:5]
            raise ValueError(f"the model has no weight {name!r} of floats; among its {len(own)} are {near}")
        if np.shape(array) != own[name].shape:
            raise ValueError(f"weight {name!r} has the shape {own[name].shape} and got {np.shape(array)}")
    return {name: np.asarray(array, own[name].dtype, order="C") for name, array in given.items()}


def with_overridable(model: ModelProto, names: Collection[str]) -> None:
    """Declare weights as inputs whose initializers are defaults, in a model of one's own.

    No rewriting of the graph may then count on their values.
    """
    if not names:
        return
    graph = model.graph
    lifted = [(node, tensor) for node, tensor in _constants(model) if node.output[0] in names]
    for node, tensor in lifted:
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    # Up to IR 3 every initializer was declared as an input too; from IR 4 on that makes it overridable.
    kept = [value for value in graph.input if value.name not in initializers]
    declared = [
        helper.make_tensor_value_info(name, initializers[name].data_type, initializers[name].dims)
        for name in names
    ]
    model.ir_version = max(model.ir_version, 4)
    del graph.input[:]
    graph.input.extend([*kept, *declared])


def without_defaults(model: ModelProto, names: Collection[str]) -> None:
    """Drop the initializers of overridable weights, in a model of one's own: they come with each run."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    if len(kept) < len(model.graph.initializer):
        kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def _weights_read(node: NodeProto, tensors: Mapping[str, Any]) -> Iterator[str]:
    settings = _SETTINGS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
    inputs = list(node.input)
    for place, name in enumerate(inputs):
        if name not in tensors or settings is None or place in settings:
            continue
        if node.op_type in _ARITHMETIC and int(np.prod(tensors[name].dims)) == 1:
            continue
        yield name
    yield from (name for name in names_read(node) if name in tensors and name not in inputs)


def _constants(model: ModelProto) -> list[tuple[NodeProto, TensorProto]]:
    """Constant nodes of the main graph that hold a tensor of floats."""
    return [
        (node, attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value" and attribute.t.data_type in _FLOATS
    ]
