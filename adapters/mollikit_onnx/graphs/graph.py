from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    checker,
    defs,
    helper,
    numpy_helper,
)
from onnx.shape_inference import InferenceError, infer_node_outputs

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.dimensions import sharper, with_ranks
from mollikit_onnx.graphs.tensor import Dimension, Tensor

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


class GraphBuilder:
    """Nodes and constants emitted so far, with the types of all tensors.

    Parameters
    ----------
    opsets : mapping
        Version by domain.
    types : mapping
        Type of each tensor that exists already.
    values : mapping
        Arrays of the constants that exist already.
    taken : iterable of str
        Names that must not be used again.
    straight_through : bool
        Whether cotangents pass quantisation.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        types: Mapping[str, TypeProto],
        values: Mapping[str, NDArray[Any]],
        taken: set[str],
        *,
        straight_through: bool = False,
    ) -> None:
        self.opsets = dict(opsets)
        self.nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._types = dict(types)
        self._values = dict(values)
        self._taken = set(taken)
        self._imports = [OperatorSetIdProto(domain=d, version=v) for d, v in self.opsets.items()]
        self._once: MutableMapping[Any, Tensor] = {}
        self._numbers = count(1)
        self.scope = ""
        self.straight_through = straight_through

    def inner(self) -> GraphBuilder:
        """Return a builder for a graph inside this one: it sees all that is here, and keeps its nodes.

        What it makes is not seen from here, except constants.
        """
        builder = copy(self)
        builder.nodes = []
        builder._once = ChainMap({}, self._once)
        return builder

    def type_of(self, name: str) -> TypeProto:
        """Return what is known of a tensor's type."""
        return self._types.get(name, TypeProto())

    def tensor(self, name: str) -> Tensor:
        """Return the handle of a tensor that exists."""
        kind = self.type_of(name)
        shape: tuple[Dimension, ...] | None = None
        if kind.tensor_type.HasField("shape"):
            dims = kind.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)
        return Tensor(self, name, kind.tensor_type.elem_type, shape)

    def within(self, x: Tensor) -> Tensor:
        """Return the handle by which a tensor of the graph outside is used here."""
        return replace(x, graph=self, repeated=None)

    def declare(self, name: str, kind: TypeProto) -> Tensor:
        """Return the handle of a tensor that comes from outside."""
        self._types[name] = kind
        self._taken.add(name)
        return self.tensor(name)

    def typed(self, g: Tensor, x: Tensor) -> Tensor:
        """Return the cotangent g of x with the type of x, which may be the better known of the two."""
        return replace(g, dtype=x.dtype or g.dtype).shaped(x.shape)

    def shaped(self, x: Tensor, shape: tuple[Dimension, ...]) -> Tensor:
        """Return a tensor of which another shape is known too: sizes before symbols, these before nothing."""
        old = x.shape if x.shape is not None and len(x.shape) == len(shape) else shape
        merged = tuple(a if isinstance(a, int) or b is None else b for a, b in zip(old, shape, strict=True))
        if x.dtype:
            self._types[x.name] = helper.make_tensor_type_proto(x.dtype, merged)
        return replace(x, shape=merged)

    def constant_protos(self, names: Collection[str]) -> list[TensorProto]:
        """Return the constants emitted here that are among the names."""
        return [constant for constant in self._constants if constant.name in names]

    def value(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant, or None."""
        return self._values.get(name)

    def fresh(self, stem: str) -> str:
        """Return a name that is not taken yet."""
        while True:
            name = f"{stem}.{next(self._numbers)}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def once(self, key: Any, make: Any) -> Tensor:
        """Return the tensor made for this key before, or make it."""
        if key not in self._once:
            self._once[key] = make()
        return replace(self._once[key], graph=self)

    def constant(self, array: NDArray[Any]) -> Tensor:
        """Return a constant; equal ones are emitted once."""
        key = ("constant", array.dtype.str, array.dtype.name, array.shape, array.tobytes())
        return self.once(key, lambda: self._emit_constant(array))

    def _emit_constant(self, array: NDArray[Any]) -> Tensor:
        name = self.fresh("vjp/constant")
        proto = numpy_helper.from_array(array, name)
        self._constants.append(proto)
        self._types[name] = helper.make_tensor_type_proto(proto.data_type, array.shape)
        self._values[name] = array
        return self.tensor(name)

    def scalar(self, value: float, dtype: int) -> Tensor:
        """Return a scalar constant of an ONNX dtype."""
        if dtype == TensorProto.UNDEFINED:
            raise ModelError(
                f"{self.scope}: the type of a tensor cannot be inferred; declare it in value_info"
            )
        return self.constant(np.asarray(value, helper.tensor_dtype_to_np_dtype(dtype)))

    def operand(self, value: Any, dtype: int) -> Tensor:
        """Return a tensor for an operand: numbers take the dtype given, lists of int are int64."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, np.ndarray):
            return self.constant(value)
        if isinstance(value, Sequence):
            return self.constant(np.array(value, np.int64))
        return self.scalar(value, dtype)

    def joined(self, *sizes: int | Tensor) -> Tensor:
        """Return an int64 vector made of numbers and vectors of such: a constant where they are known."""
        parts = [self.constant(np.array([n], np.int64)) if isinstance(n, int) else n for n in sizes]
        known = [part.value for part in parts if part.value is not None]
        if len(known) == len(parts):
            return self.constant(np.concatenate(known))
        return self.op("Concat", *parts, axis=0)

    def op(self, op_type: str, *inputs: Any, **attributes: Any) -> Tensor:
        """Emit an operator and return its first output; None leaves an optional input out."""
        return self.ops(1, op_type, *inputs, **attributes)[0]

    def ops(self, n_outputs: int, op_type: str, *inputs: Any, **attributes: Any) -> list[Tensor]:
        """Emit an operator and return its first ``n_outputs`` outputs."""
        if attributes.get("reduction") == "add" and inputs[0].dtype in _HALVES:
            # onnxruntime scatters sums of no half; they would be rough too.
            wide = [
                x.op("Cast", to=TensorProto.FLOAT) if isinstance(x, Tensor) and x.dtype in _HALVES else x
                for x in inputs
            ]
            made = self.ops(n_outputs, op_type, *wide, **attributes)
            return [y.op("Cast", to=inputs[0].dtype) for y in made]
        dtype = next((x.dtype for x in inputs if isinstance(x, Tensor)), TensorProto.FLOAT)
        names = ["" if x is None else self.operand(x, dtype).name for x in inputs]
        outputs = [self.fresh(f"{self.scope}/{op_type}") for _ in range(n_outputs)]
        while names and not names[-1]:
            names.pop()
        return self.emit(helper.make_node(op_type, names, outputs, name=outputs[0], **attributes))

    def emit(self, node: NodeProto) -> list[Tensor]:
        """Append a node whose output names are fresh, and return its outputs."""
        self.nodes.append(node)
        self._types.update(self._inferred(node))
        return [self.tensor(name) for name in node.output]

    def adopt(self, node: NodeProto) -> None:
        """Append a node of the model, and sharpen the types of its outputs by those of its inputs."""
        self.nodes.append(node)
        known = all(name in self._types for name in node.input if name)
        if node.domain or not known:
            return
        self._types.update(with_ranks(node, self._types))
        for name, kind in self._inferred(node).items():
            if kind.HasField("tensor_type"):
                before = self._types.get(name, kind)
                self._types[name] = sharper(node, kind, before, self._types, self._values)

    def _inferred(self, node: NodeProto) -> dict[str, TypeProto]:
        if not all(name in self._types for name in node.input if name):
            # Something beside the path comes from an operator whose types onnx does not know.
            return {}
        if any(a.type in _SUBGRAPHS for a in node.attribute):
            # What such nodes capture cannot be told to onnx; who emits one declares its outputs.
            return {}
        if node.op_type == "GroupNormalization":
            # onnx infers none of its versions.
            return {node.output[0]: self._types[node.input[0]]}
        if not defs.has(node.op_type, self.opsets[""], ""):
            # What onnxruntime adds to the default domain, or nobody knows; on the path it is refused.
            return {}
        schema = defs.get_schema(node.op_type, self.opsets[""], "")
        data = {
            name: numpy_helper.from_array(self._values[name], name)
            for name in node.input
            if name in self._values and self._values[name].size <= 64
        }
        kinds = {name: self._types[name] for name in node.input if name}
        try:
            return infer_node_outputs(schema, node, kinds, data, opset_imports=self._imports)
        except (checker.ValidationError, InferenceError, ValueError) as error:
            raise ModelError(
                f"operator {node.op_type}, node {node.name or node.output[0]!r}, is not valid for its inputs "
                f"at opset {self.opsets['']}: {error}"
            ) from error
