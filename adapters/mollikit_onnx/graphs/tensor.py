from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mollikit_onnx.errors import ModelError

if TYPE_CHECKING:
    from mollikit_onnx.graphs.graph import GraphBuilder

Dimension = int | str | None
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph under construction; arithmetic on it emits nodes.

    Numbers beside a tensor become constants of its dtype.

    Attributes
    ----------
    graph : GraphBuilder
        Where operations on the tensor are emitted.
    name : str
    dtype : int
        A ``TensorProto.DataType``; UNDEFINED where unknown.
    shape : tuple or None
        Sizes as int, str (symbolic) or None (unknown); None where even the rank is unknown.
    repeated : Tensor or None
        What this one is a broadcast copy of, where it is one: a product may take that instead.
    """

    graph: GraphBuilder
    name: str
    dtype: int
    shape: tuple[Dimension, ...] | None
    repeated: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        if self.shape is None:
            raise ModelError(
                f"the rank of tensor {self.name!r} cannot be inferred; declare its shape in the "
                "model's value_info"
            )
        return len(self.shape)

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The shape where every size is known before running, else None."""
        known = [size for size in self.shape or (None,) if isinstance(size, int)]
        return tuple(known) if self.shape is not None and len(known) == len(self.shape) else None

    @property
    def value(self) -> NDArray[Any] | None:
        """The value where it is a constant of the graph, else None."""
        return self.graph.value(self.name)

    def op(self, op_type: str, *others: Any, **attributes: Any) -> Tensor:
        """Emit an operator with this tensor as its first input."""
        return self.graph.op(op_type, self, *others, **attributes)

    def __add__(self, other: Tensor | float) -> Tensor:
        return self._with("Add", other)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self._with("Sub", other)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self._with("Mul", other)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self._with("Div", other)

    def __radd__(self, other: float) -> Tensor:
        return self.op("Add", other)

    def __rsub__(self, other: float) -> Tensor:
        return self.graph.scalar(other, self.dtype).op("Sub", self)

    def __rmul__(self, other: float) -> Tensor:
        return self.op("Mul", other)

    def __rtruediv__(self, other: float) -> Tensor:
        return self.graph.scalar(other, self.dtype).op("Div", self)

    def __neg__(self) -> Tensor:
        return self.op("Neg")

    def _with(self, op_type: str, other: Tensor | float) -> Tensor:
        """Emit an operator of two operands; of one that is broadcast anyhow, what it repeats."""
        if not isinstance(other, Tensor):
            return self.op(op_type, other)
        least = self._least(other)
        return least.op(op_type, other._least(self) if least is self else other)

    def _least(self, other: Tensor) -> Tensor:
        """What this one repeats, if broadcast to ``other`` it has the shape of this one too."""
        small = self.repeated
        if small is None or not small.shape or not other.shape or not self.shape:
            return self
        pairs = zip_longest(reversed(self.shape), reversed(small.shape), reversed(other.shape))
        return small if all(size in others and size is not None for size, *others in pairs) else self

    def where(self, condition: Tensor, other: Tensor | float = 0.0) -> Tensor:
        """Return this tensor where the condition holds, ``other`` elsewhere."""
        return condition.op("Where", self, self.graph.operand(other, self.dtype))

    def like(self, values: Any) -> Tensor:
        """Return a constant of this tensor's type."""
        return self.graph.constant(np.array(values, helper.tensor_dtype_to_np_dtype(self.dtype)))

    def zeros(self) -> Tensor:
        """Zeros of this tensor's shape and type."""
        return self.graph.scalar(0.0, self.dtype).expanded_like(self)

    def shaped(self, shape: tuple[Dimension, ...] | None) -> Tensor:
        """Return the same tensor, its shape known from elsewhere."""
        return self if shape is None else self.graph.shaped(self, shape)

    def dims(self, start: int = 0, end: int | None = None) -> Tensor:
        """Sizes of the axes [start, end) as an int64 vector: a constant where they are known."""
        sizes = self.shape[start:end] if self.shape is not None else (None,)
        if all(isinstance(size, int) for size in sizes):
            return self.graph.constant(np.array(sizes, np.int64))
        return self.graph.once(("Shape", self.name, start, end), lambda: self._shape_node(start, end))

    def _shape_node(self, start: int, end: int | None) -> Tensor:
        return self.op("Shape", start=start) if end is None else self.op("Shape", start=start, end=end)

    def counted(self) -> Tensor:
        """0, 1, ... up to this number, which is a scalar or a vector of one and not among them."""
        count = self if self.shape == () else self.op("Squeeze", [0])
        return self.graph.scalar(0, self.dtype).op("Range", count, 1)

    def reshaped(self, *sizes: int | Tensor, **attributes: Any) -> Tensor:
        """Return this tensor with the shape that numbers and int64 vectors make, joined."""
        return self.op("Reshape", self.graph.joined(*sizes), **attributes)

    def reshaped_like(self, other: Tensor) -> Tensor:
        """Return this tensor with the shape of another of as many elements."""
        if self.shape is not None and self.shape == other.shape and None not in self.shape:
            return self
        # One unknown size is found by Reshape itself, and the batch then costs no Shape node.
        unknown = [k for k, size in enumerate(other.shape or ()) if not isinstance(size, int)]
        if other.shape is not None and len(unknown) == 1 and 0 not in other.shape:
            target: Any = [size if isinstance(size, int) else -1 for size in other.shape]
            return self.op("Reshape", target).shaped(other.shape)
        return self.op("Reshape", other.dims(), allowzero=1).shaped(other.shape)

    def expanded_like(self, other: Tensor) -> Tensor:
        """Broadcast this tensor to the shape of another."""
        return replace(self.op("Expand", other.dims()).shaped(other.shape), repeated=self)

    def summed_to(self, other: Tensor) -> Tensor:
        """Undo broadcasting: sum over the axes along which ``other`` was repeated to this tensor's shape."""
        if self.shape is None or other.shape is None:
            return self._summed_at_run_time(other)
        extra = self.rank - other.rank
        axes = list(range(extra))
        for axis, (own, size) in enumerate(zip(self.shape[extra:], other.shape, strict=True), start=extra):
            if size == 1 and own != 1:
                axes.append(axis)
            elif not isinstance(size, int) and (size is None or size != own):
                return self._summed_at_run_time(other)
        summed = self.op("ReduceSum", axes, keepdims=1) if axes else self
        return summed.op("Squeeze", list(range(extra))).shaped(other.shape) if extra else summed

    def _summed_at_run_time(self, other: Tensor) -> Tensor:
        own, size = self.dims(), other.dims()
        missing = own.op("Size") - size.op("Size")
        padded = self.graph.op("Pad", size, missing.op("Unsqueeze", [0]).op("Concat", [0], axis=0), 1)
        axes = padded.op("Equal", 1).op("NonZero").op("Reshape", [-1])
        summed = self.op("ReduceSum", axes, keepdims=1, noop_with_empty_axes=1)
        return summed.op("Reshape", size, allowzero=1).shaped(other.shape)
