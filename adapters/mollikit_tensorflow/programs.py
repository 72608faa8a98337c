from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from mollikit.outputs import Output, chosen
from mollikit_tensorflow.selection import by_function, check_floats, tensor_output
from mollikit_tensorflow.sources import Source

Tensors = Mapping[str, Any]
Row = tuple[int | None, ...]


@dataclass(frozen=True)
class Arguments:
    """What a traced function takes: points, held tensors and replaced weights, by name."""

    points: Tensors
    held: Tensors
    weights: Tensors

    @property
    def form(self) -> tuple[Any, ...]:
        """Names, dtypes and shapes without the batch axis: what a trace depends on."""
        inputs = (
            tuple((name, tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in part.items())
            for part in (self.points, self.held)
        )
        return (*inputs, tuple(self.weights))


@dataclass(frozen=True)
class Program:
    """A model traced with an open batch axis.

    Attributes
    ----------
    run : callable
        (points, held, weights, coordinates) to tensors.
    row : tuple of int or None
        The chosen output's shape behind the batch axis; empty where a function explains it.
    dtype : tf.DType
        Of what it returns first.
    """

    run: Callable[[Tensors, Tensors, Tensors, Any], Any]
    row: Row
    dtype: Any


class Programs:
    """A model's outputs, values and gradients as concrete functions, traced once for each form of arguments.

    Neither the length of the batch nor the target is part of a trace: both are tensors.
    """

    def __init__(
        self, source: Source, output: Output, function: Callable[[Any], Any] | None, jit_compile: bool
    ) -> None:
        self._source, self._output, self._function = source, output, function
        self._jit_compile = jit_compile
        self._traced: dict[Any, Program] = {}
        self._lock = threading.Lock()

    def outputs(self, arguments: Arguments) -> Program:
        """Return the program of the chosen output, a tuple of one tensor."""

        def outputs(points: Tensors, held: Tensors, weights: Tensors, where: Any) -> tuple[Row, Any]:
            tensor = self._rows(self._chosen(points, held, weights))
            return tuple(tensor.shape[1:]), (tensor,)

        return self._program("outputs", outputs, arguments)

    def values(self, arguments: Arguments) -> Program:
        """Return the program of the explained scalars, and of what tells whether they were the ones meant."""

        def values(points: Tensors, held: Tensors, weights: Tensors, where: Any) -> tuple[Row, Any]:
            return self._explained(self._chosen(points, held, weights), where)

        return self._program("values", values, arguments)

    def gradients(self, arguments: Arguments) -> Program:
        """Return the program of scalars, tell-tales and gradients by name."""

        def gradients(points: Tensors, held: Tensors, weights: Tensors, where: Any) -> tuple[Row, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(points.values()))
                row, (values, telltale) = self._explained(self._chosen(points, held, weights), where)
            found = tape.gradient(values, dict(points))
            _refuse_none(found)
            return row, (values, telltale, {name: tf.convert_to_tensor(g) for name, g in found.items()})

        return self._program("gradients", gradients, arguments)

    def gradients_of(self, count: int, arguments: Arguments) -> Program:
        """Return the program of values (K, m), the output's shape, and K gradients by name."""

        def gradients(points: Tensors, held: Tensors, weights: Tensors, where: Any) -> tuple[Row, Any]:
            with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
                tape.watch(list(points.values()))
                output = self._chosen(points, held, weights)
                # Coordinates (K * m, rank): the rows of one target, then those of the next.
                each = [self._explained(output, part) for part in tf.split(where, count)]
            found = []
            for _, (values, _) in each:
                found.append(tape.gradient(values, dict(points)))
                _refuse_none(found[-1])
            row, (_, shape) = each[0]
            tensors = [{name: tf.convert_to_tensor(g) for name, g in one.items()} for one in found]
            return row, (tf.stack([values for _, (values, _) in each]), shape, tensors)

        return self._program(("gradients of", count), gradients, arguments)

    def _chosen(self, points: Tensors, held: Tensors, weights: Tensors) -> Any:
        return chosen(self._source.outputs(points, held, weights), self._output)

    def _rows(self, output: Any) -> Any:
        tensor = tensor_output(output)
        if tensor.shape[0] is not None and not self._source.row_by_row:
            raise ValueError(
                f"the output has the shape {tuple(tensor.shape)} for any number of points: its first axis "
                "must be the batch"
            )
        return tensor

    def _explained(self, output: Any, where: Any) -> tuple[Row, Any]:
        if self._function is not None:
            return (), by_function(output, self._function)
        tensor = self._rows(output)
        check_floats(tensor, "the output")
        shape = tf.shape(tensor, out_type=where.dtype)
        # A GPU reads zeros beyond the end where a CPU raises: stay inside, and let the caller see the shape.
        return tuple(tensor.shape[1:]), (tf.gather_nd(tensor, tf.minimum(where, shape - 1)), shape)

    def _program(
        self, kind: Hashable, function: Callable[..., tuple[Row, Any]], arguments: Arguments
    ) -> Program:
        key = (kind, arguments.form)
        program = self._traced.get(key)
        if program is None:
            with self._lock:
                program = self._traced.get(key) or self._trace(function, arguments)
                self._traced[key] = program
        return program

    def _trace(self, function: Callable[..., tuple[Row, Any]], arguments: Arguments) -> Program:
        row: Row = ()

        def tensors(points: Tensors, held: Tensors, weights: Tensors, where: Any) -> Any:
            nonlocal row
            row, results = function(points, held, weights, where)
            return results

        batch = 1 if self._source.row_by_row else None
        points, held = (
            {name: tf.TensorSpec([batch, *t.shape[1:]], t.dtype) for name, t in part.items()}
            for part in (arguments.points, arguments.held)
        )
        weights = {name: tf.TensorSpec(w.shape, w.dtype) for name, w in arguments.weights.items()}
        concrete = tf.function(
            tensors, autograph=False, jit_compile=self._jit_compile or None
        ).get_concrete_function(points, held, weights, tf.TensorSpec([None, None], tf.int64))
        return Program(concrete, row, concrete.structured_outputs[0].dtype)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._source, self._output, self._function, self._jit_compile

    def __setstate__(self, parts: tuple[Any, ...]) -> None:
        Programs.__init__(self, *parts)


def _refuse_none(found: Mapping[str, Any]) -> None:
    if all(gradient is None for gradient in found.values()):
        raise ValueError(
            "the output does not depend on the points by differentiable operations: look for tf.argmax, "
            "rounding, casts to integers, tf.stop_gradient or tf.py_function in the model, or use an "
            "estimator from values"
        )
    for name, gradient in found.items():
        if gradient is None:
            raise ValueError(
                f"the output does not depend on input {name!r}: hold it, or choose another output"
            )
