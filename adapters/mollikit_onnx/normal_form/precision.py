from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    external_data_helper,
    helper,
    numpy_helper,
)

from mollikit_onnx.errors import ModelError

_BITS: dict[int, int] = {TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64}
_BITS |= dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16), 16)
# Attributes that name the type of a result.
_TYPED = ("to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision")
# Operators that make float32 unless an attribute says otherwise.
_UNTOLD = dict.fromkeys(("RandomNormal", "RandomUniform", "SequenceEmpty"), "dtype")
_UNTOLD |= dict.fromkeys(
    ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"), "output_datatype"
)


def widened(model: ModelProto, dtype: DTypeLike = np.float32) -> ModelProto:
    """Return a model that computes in wider floats: inputs, outputs, weights and all between.

    ONNX Runtime has few kernels of float16, and next to none of bfloat16, on the CPU, and a gradient in 8 or
    11 bits is a rough one; ``OnnxOracle(widened(model), ...)`` and ``vjp(widened(model), ...)`` serve such
    models. Floats that are as wide already stay as they are, and so do integers.

    Parameters
    ----------
    model : onnx.ModelProto
        With its weights inside; left as it is.
    dtype : numpy.float32 or numpy.float64

    Raises
    ------
    ModelError
        The dtype is another one, or a weight is kept in a data file.

    Examples
    --------
    >>> from onnx import parser
    >>> half = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
    ...                           'm (float16[n] x) => (float16[n] y) { y = Sin(x) }')
    >>> widened(half).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    True
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ModelError(f"models are widened to float32 or float64, not to {np.dtype(dtype)}")
    wide = ModelProto()
    wide.CopyFrom(model)
    widening = _Widening(np.dtype(dtype))
    widening.graph(wide.graph)
    for function in wide.functions:
        for node in function.node:
            widening.node(node)
    return wide


class _Widening:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype, self._kind = dtype, helper.np_dtype_to_tensor_dtype(dtype)

    def _narrow(self, kind: int) -> bool:
        return _BITS.get(kind, 64) < _BITS[self._kind]

    def graph(self, graph: GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.value_info):
            self._type(value.type)
        for tensor in graph.initializer:
            self._tensor(tensor)
        for node in graph.node:
            self.node(node)

    def node(self, node: NodeProto) -> None:
        given = {attribute.name for attribute in node.attribute}
        if node.op_type == "ConstantOfShape" and "value" not in given:
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            node.attribute.append(helper.make_attribute("value", zero))
        elif node.op_type in _UNTOLD and _UNTOLD[node.op_type] not in given:
            node.attribute.append(helper.make_attribute(_UNTOLD[node.op_type], TensorProto.FLOAT))
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                self.graph(attribute.g)
            elif attribute.type == AttributeProto.TENSOR:
                self._tensor(attribute.t)
            elif attribute.name in _TYPED and self._narrow(attribute.i):
                attribute.i = self._kind
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                array = np.array(helper.get_attribute_value(attribute), np.float32)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
                self._tensor(attribute.t)

    def _type(self, kind: TypeProto) -> None:
        if kind.HasField("sequence_type"):
            self._type(kind.sequence_type.elem_type)
        elif kind.HasField("optional_type"):
            self._type(kind.optional_type.elem_type)
        elif self._narrow(kind.tensor_type.elem_type):
            kind.tensor_type.elem_type = self._kind

    def _tensor(self, tensor: TensorProto) -> None:
        if not self._narrow(tensor.data_type):
            return
        if external_data_helper.uses_external_data(tensor):
            raise ModelError(
                f"the weight {tensor.name!r} is kept in a data file: load it into the model first"
            )
        array = numpy_helper.to_array(tensor).astype(self._dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
