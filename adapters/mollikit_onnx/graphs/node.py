from __future__ import annotations

from typing import Any, NoReturn

from onnx import AttributeProto, NodeProto, TensorProto, defs, helper

from mollikit_onnx.errors import UnsupportedOperatorError
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import names_captured
from mollikit_onnx.graphs.tensor import Dimension, Tensor


class Node:
    """A forward node as its rule sees it.

    Attributes
    ----------
    graph : GraphBuilder
        Where the rule emits.
    inputs, outputs : list
        Handles of the tensors; None where an optional one is left out.
    captured : list
        Handles of the tensors that its graphs read from outside; a rule of such an operator gives their
        cotangents after those of the inputs.
    wanted : list of bool
        Inputs, then captured tensors, whose cotangent is asked for; a rule may leave out the others.
    """

    def __init__(self, proto: NodeProto, graph: GraphBuilder, active: set[str]) -> None:
        self.proto = proto
        self.graph = graph
        self.inputs: list[Any] = [graph.tensor(name) if name else None for name in proto.input]
        self.outputs: list[Any] = [graph.tensor(name) if name else None for name in proto.output]
        captured = names_captured(proto)
        self.captured = [graph.tensor(name) for name in captured]
        self.wanted = [name in active for name in (*proto.input, *captured)]
        self._attributes = {a.name: a for a in proto.attribute}

    @property
    def x(self) -> Tensor:
        """The first input."""
        tensor: Tensor = self.inputs[0]
        return tensor

    @property
    def y(self) -> Tensor:
        """The first output."""
        tensor: Tensor = self.outputs[0]
        return tensor

    def input(self, index: int) -> Tensor | None:
        """Return an input, or None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(
        self, index: int, dtype: int = TensorProto.INT64, shape: tuple[Dimension, ...] | None = None
    ) -> Tensor:
        """Return an output; an optional one that was left out is asked for from now on.

        Parameters
        ----------
        index : int
            Its place.
        dtype, shape : optional
            Its type where it was left out; by default the numbers of the elements of the first output.
        """
        while len(self.outputs) <= index:
            self.outputs.append(None)
            self.proto.output.append("")
        if self.outputs[index] is None:
            dims = self.y.shape if shape is None else shape
            name = self.graph.fresh(f"{self.graph.scope}/output")
            self.proto.output[index] = name
            self.outputs[index] = self.graph.declare(name, helper.make_tensor_type_proto(dtype, dims))
        tensor: Tensor = self.outputs[index]
        return tensor

    def again(self, *first: Tensor) -> Tensor:
        """Emit the node once more, with its first inputs exchanged."""
        duplicate = NodeProto()
        duplicate.CopyFrom(self.proto)
        duplicate.input[: len(first)] = [x.name for x in first]
        duplicate.name = self.graph.fresh(f"{self.graph.scope}/{duplicate.op_type}")
        duplicate.output[:] = [duplicate.name]
        return self.graph.emit(duplicate)[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, else its default in the operator's schema, else ``default``."""
        if name in self._attributes:
            value = helper.get_attribute_value(self._attributes[name])
        else:
            kind, domain = self.proto.op_type, self.proto.domain
            version = self.graph.opsets.get(domain, 1)
            known = (
                defs.get_schema(kind, version, domain).attributes if defs.has(kind, version, domain) else {}
            )
            if name not in known or known[name].default_value.type == AttributeProto.UNDEFINED:
                return default
            value = helper.get_attribute_value(known[name].default_value)
        return value.decode() if isinstance(value, bytes) else value

    def options(self, *names: str) -> dict[str, Any]:
        """Those of the named attributes that the node has, or its schema by default."""
        values = {name: self.attribute(name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error of a use of the operator that the rule does not cover."""
        raise UnsupportedOperatorError(self.proto.op_type, self.proto.domain, self.proto.name, reason)
