from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import checker, shape_inference
from onnx.helper import tensor_dtype_to_np_dtype

from mollikit.oracles import Array
from mollikit_onnx.loading import ModelFileError

# What NumPy and ONNX Runtime's Python interface both hold.
_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Port:
    """An input or output of a model; its shape is None for an unknown rank, an axis None where open."""

    name: str
    dtype: np.dtype[Any]
    is_float: bool
    shape: tuple[int | None, ...] | None

    @property
    def row_shape(self) -> tuple[int | None, ...] | None:
        """The shape without the batch axis."""
        return None if self.shape is None else self.shape[1:]

    def batch(self, given: Any) -> Array | ort.OrtValue:
        """Return ``given`` as a contiguous array (m, *row_shape) of this dtype, or say what is wrong.

        An OrtValue is returned as it is.
        """
        if isinstance(given, ort.OrtValue):
            self._check_bound(given)
            return given
        array = np.asarray(given)
        if array.dtype != self.dtype:
            kinds = "f" if self.is_float else "iu" if self.dtype.kind in "iu" else self.dtype.kind
            if array.dtype.kind not in kinds:
                raise TypeError(f"input {self.name!r} takes {self.dtype} and got an array of {array.dtype}")
            cast = array.astype(self.dtype)
            if kinds == "iu" and not np.array_equal(cast, array):
                raise TypeError(
                    f"input {self.name!r} takes {self.dtype} and got {array.dtype} beyond its range"
                )
            array = cast
        self._check_shape(array.shape)
        return np.ascontiguousarray(array)

    def check_declared(self, found: onnx.ValueInfoProto) -> None:
        """Raise ModelFileError where the model makes another shape of this output than it declares."""
        shape = _port(found).shape
        if self.shape is not None and shape is not None and not _fits(shape, self.shape):
            raise ModelFileError(
                f"output {self.name!r} is declared as {self._expected()}, and what the model computes is of "
                f"shape {shape}: drop the declaration and let onnx.shape_inference.infer_shapes find it"
            )

    def _check_bound(self, value: ort.OrtValue) -> None:
        if not value.is_tensor():
            raise TypeError(f"input {self.name!r} takes a tensor and got an OrtValue of {value.data_type()}")
        if np.dtype(tensor_dtype_to_np_dtype(value.element_type())) != self.dtype:
            raise TypeError(
                f"input {self.name!r} takes {self.dtype} and got an OrtValue of {value.data_type()}: cast it "
                "where it lies"
            )
        self._check_shape(tuple(value.shape()))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if self.shape is not None and not _fits(shape, self.shape):
            raise ValueError(
                f"input {self.name!r} takes a batch of shape {self._expected()} and got {shape}"
                + (": add the batch axis" if _fits((1, *shape), self.shape) else "")
            )
        if not shape:
            raise ValueError(f"input {self.name!r} takes a batch (m, *shape) and got a scalar")

    def _expected(self) -> str:
        assert self.shape is not None
        return "(" + ", ".join(["m", *("?" if dim is None else str(dim) for dim in self.shape[1:])]) + ")"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model; ``row_by_row`` where it takes a single row at a time."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    row_by_row: bool

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Signature:
        """Read the signature of a model.

        Raises
        ------
        ModelFileError
            An input has no batch axis, or one of a fixed length above 1.
        """
        weights = {tensor.name for tensor in model.graph.initializer}
        infos = [info for info in model.graph.input if info.name not in weights]
        outputs = list(model.graph.output)
        if any(not info.type.tensor_type.HasField("shape") for info in outputs):
            try:
                outputs = list(shape_inference.infer_shapes(model).graph.output)
            except (shape_inference.InferenceError, checker.ValidationError) as error:
                raise ModelFileError(f"the model is not valid: {error}") from error
        inputs = {info.name: _port(info) for info in infos}
        return cls(inputs, {info.name: _port(info) for info in outputs}, _row_by_row(inputs))

    def smoothed(self, wrt: tuple[str, ...] | None) -> tuple[str, ...]:
        """Names of the inputs to differentiate: ``wrt``, or all that hold floats."""
        floats = tuple(name for name, port in self.inputs.items() if port.is_float)
        if not floats:
            kinds = ", ".join(f"{name!r} ({port.dtype})" for name, port in self.inputs.items()) or "none"
            raise ModelFileError(
                "The model has no input of float16, float32 or float64 to differentiate (its inputs: "
                f"{kinds}): export the part of the model behind the embedding or the preprocessing, or bring "
                "bfloat16 to float32 with mollikit_onnx.widened"
            )
        for name in wrt or ():
            if name not in self.inputs:
                raise ValueError(f"wrt: the model has no input {name!r}; its inputs are {list(self.inputs)}")
            if name not in floats:
                raise ValueError(
                    f"wrt: input {name!r} is of {self.inputs[name].dtype}: choose among {floats}"
                )
        if wrt == ():
            raise ValueError(f"wrt names no input: choose among {floats}, or leave it out for all of them")
        return floats if wrt is None else wrt

    def explained(self, output: str | None) -> Port:
        """Return the output to differentiate: ``output``, or the only one that holds floats."""
        floats = [name for name, port in self.outputs.items() if port.is_float]
        if not floats:
            raise ValueError(
                f"The model has no output of floats, but {list(self.outputs)}: a scikit-learn classifier is "
                "exported with zipmap=False"
            )
        if output is None and len(floats) != 1:
            raise ValueError(
                f"The model has {len(floats)} outputs of floats, {floats}: choose one by output="
            )
        if output is not None and output not in floats:
            raise ValueError(f"The model has no output {output!r} of floats: choose among {floats}")
        return self.outputs[output or floats[0]]


def _port(info: onnx.ValueInfoProto) -> Port:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type") or not tensor.elem_type:
        return Port(info.name, np.dtype(object), False, None)
    if tensor.elem_type not in onnx.TensorProto.DataType.values():
        raise ModelFileError(f"{info.name!r} is of the unknown type {tensor.elem_type}")
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type))
    return Port(info.name, dtype, tensor.elem_type in _FLOATS, shape)


def _row_by_row(inputs: Mapping[str, Port]) -> bool:
    for port in inputs.values():
        if port.shape == ():
            raise ModelFileError(
                f"input {port.name!r} is a scalar without a batch axis: make it a constant of the model"
            )
        if port.shape is not None and port.shape[0] not in (None, 1):
            raise ModelFileError(
                f"input {port.name!r} of shape {port.shape} has its first axis, the batch, fixed at "
                f"{port.shape[0]}: export the model with a dynamic batch axis (or rename that axis with "
                "onnx.tools.update_model_dims)"
            )
    return any(port.shape is not None and port.shape[0] == 1 for port in inputs.values())


def _fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    # The batch axis is free: a model fixed at one row is run row by row.
    return len(shape) == len(expected) and all(
        want is None or got is None or got == want for got, want in zip(shape[1:], expected[1:], strict=True)
    )
