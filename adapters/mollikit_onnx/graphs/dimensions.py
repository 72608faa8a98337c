"""What onnx's shape inference leaves out and follows from the standard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorShapeProto, TypeProto, helper

Dim = TensorShapeProto.Dimension
# Outputs of these have one rank whatever is known of the inputs.
_RANKS = {"STFT": 4}
_RECURRENT = ("GRU", "LSTM", "RNN")
_SLIDING = ("Conv", "AveragePool", "LpPool", "MaxPool")


def sharper(
    node: NodeProto,
    inferred: TypeProto,
    before: TypeProto,
    types: Mapping[str, TypeProto],
    values: Mapping[str, NDArray[Any]],
) -> TypeProto:
    """Return the type of an output of a node, as far as it is known.

    Parameters
    ----------
    node : NodeProto
    inferred : TypeProto
        What onnx infers from the types of the node's inputs.
    before : TypeProto
        What was known without these.
    types, values : mapping
        Of the tensors and constants so far.
    """
    if node.op_type == "Einsum" and before.tensor_type.HasField("shape"):
        return before
    sharp = TypeProto()
    sharp.CopyFrom(inferred)
    if not inferred.tensor_type.HasField("shape"):
        if node.op_type not in _RANKS or before.tensor_type.HasField("shape"):
            return before
        sharp.tensor_type.shape.dim.extend(Dim() for _ in range(_RANKS[node.op_type]))
        sharp.tensor_type.elem_type = sharp.tensor_type.elem_type or before.tensor_type.elem_type
    dims = list(sharp.tensor_type.shape.dim)
    for dim, old in zip(dims, before.tensor_type.shape.dim, strict=False):
        if old.HasField("dim_value") or not dim.WhichOneof("value"):
            dim.CopyFrom(old)
    source = types.get(node.input[0]) if node.input else None
    if source is not None and source.tensor_type.HasField("shape"):
        given = list(source.tensor_type.shape.dim)
        if node.op_type == "Pad" and (pads := values.get(node.input[1])) is not None and len(node.input) < 4:
            _keep_unpadded(dims, given, pads)
        elif node.op_type in _SLIDING and len(dims) == len(given):
            _slide(node, dims, given, types)
        elif node.op_type == "Reshape":
            complete(dims, given)
    return sharp


def with_ranks(node: NodeProto, types: Mapping[str, TypeProto]) -> dict[str, TypeProto]:
    """Return types of the inputs whose rank is not known but by the operator, which takes one rank alone."""
    ranks: dict[str, int] = {}
    if node.op_type in _RECURRENT:
        # The sequence and the initial states.
        ranks = {name: 3 for place, name in enumerate(node.input) if place in (0, 5, 6)}
    elif node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 1:
        weight = types.get(node.input[1])
        if weight is not None and weight.tensor_type.HasField("shape"):
            ranks = {node.input[0]: len(weight.tensor_type.shape.dim)}
    told = {}
    for name, rank in ranks.items():
        known = types.get(name)
        if known is not None and known.HasField("tensor_type") and not known.tensor_type.HasField("shape"):
            told[name] = helper.make_tensor_type_proto(known.tensor_type.elem_type, [None] * rank)
    return told


def _keep_unpadded(dims: list[Dim], given: list[Dim], pads: NDArray[Any]) -> None:
    """Symbols of the axes that a Pad leaves as they are."""
    for dim, old, change in zip(dims, given, np.any(pads.reshape(2, -1), axis=0), strict=True):
        if not change:
            dim.CopyFrom(old)


def _slide(node: NodeProto, dims: list[Dim], given: list[Dim], types: Mapping[str, TypeProto]) -> None:
    """Symbols of the places of a window: equal symbols stand for equal sizes.

    A skip connection then adds what is known to be alike, and its cotangent needs no sum at run time.
    """
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rank = len(dims) - 2
    weight = types.get(node.input[1]) if node.op_type == "Conv" else None
    if weight is not None:
        kernel = [d.dim_value for d in weight.tensor_type.shape.dim][2:]
    else:
        kernel = options.get("kernel_shape", [])
    if len(kernel) != rank or not all(kernel) or options.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    strides = options.get("strides", [1] * rank)
    dilations = options.get("dilations", [1] * rank)
    pads = options.get("pads", [0] * (2 * rank))
    windows = zip(dims[2:], given[2:], kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    for dim, old, k, stride, dilation, begin, end in windows:
        # A symbol of the model's own stays; onnx calls the sizes that it knows nothing of unk__0, unk__1, ...
        unknown = not dim.WhichOneof("value") or dim.dim_param.startswith("unk__")
        if not (unknown and old.dim_param):
            continue
        room = begin + end - dilation * (k - 1) - 1
        if stride == 1:
            dim.dim_param = old.dim_param if room == -1 else f"({old.dim_param}{room + 1:+d})"
        elif not options.get("ceil_mode", 0):
            dim.dim_param = f"(({old.dim_param}{room:+d})//{stride}+1)"


def complete(dims: Sequence[Dim], given: Sequence[Dim]) -> bool:
    """Find the one size of a Reshape that is not known: it holds as many elements as it was given."""
    rest = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in given]
    missing = []
    known = 1
    for dim in dims:
        if dim.HasField("dim_value"):
            known *= dim.dim_value
        elif dim.dim_param and dim.dim_param in rest:
            rest.remove(dim.dim_param)
        else:
            missing.append(dim)
    if len(missing) == 1 and known and all(isinstance(size, int) for size in rest):
        total = math.prod(size for size in rest if isinstance(size, int))
        if total and total % known == 0:
            missing[0].dim_value = total // known
            return True
    return False
