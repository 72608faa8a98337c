from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from mollikit.batches import Batch, Shape, check_shape
from mollikit.oracles import Array, Points
from mollikit.outputs import Output, not_the_batch
from mollikit.targeted import Targeted
from mollikit.targets import (
    Target,
    check_own_rows,
    check_range,
    check_target,
    coordinates,
    coordinates_of,
    name_of,
    read_targets,
)
from mollikit_tensorflow.layers import LayerSource
from mollikit_tensorflow.programs import Arguments, Program, Programs
from mollikit_tensorflow.sources import Source, digest, row_shapes, source_of


class TensorFlowOracle(Targeted):
    """A TensorFlow model as an oracle: values and gradients of one scalar a row.

    The model is traced once for each shape of inputs, with an open batch axis and the target as a tensor, so
    neither retraces it. Keras models run with ``training=False`` in a stateless scope: no variable of theirs
    is written, weights trained in place are seen by the next call, and any number of threads may call.
    Functions are called as they are; what they close over is their own affair.

    Parameters
    ----------
    model : keras.Model, keras.Layer, concrete function, tf.function, tf.Module or callable
        A signature of a SavedModel, ``tf.saved_model.load(path).signatures["serving_default"]``, is a
        concrete function. Models with named inputs (Keras's Functional and Sequential ones, signatures) take
        points and held arrays by name; others get an array of points as their first argument, or a mapping
        of points by keyword, and held arrays by keyword.
    target : int, tuple of int, callable, "top" or None
        What to explain of an output (m, ...): a class of an output (m, n_classes); an index per axis
        behind the batch; a function from the output to one scalar a row, a tensor (m,), which is traced too;
        None where there is one already. "top" is the largest element on the clean input, fixed by
        `anchored`. An array ``target`` held with the rows, integers (m,) or (m, n_axes), takes
        precedence over an index.
    output : int, str or callable, optional
        Which of several outputs: its place, its key or attribute, or a function that takes it out.
    layer : str, optional
        Name of a layer of a Functional or Sequential model whose output the points replace, such as the
        embeddings of a token model; all of the model's inputs are held then. `layer_output` gives the points
        of an input.
    dtype : dtype, optional
        Of a function's points and held floats, by default the points' own; named inputs have their own.
    jit_compile : bool
        Compile by XLA, anew for every batch size.

    Raises
    ------
    ValueError
        The model has no weights yet, its batch axis is fixed above 1, or a target cannot be.
    TypeError
        The model or the target is of no known kind.

    Examples
    --------
    >>> import numpy as np, tensorflow as tf
    >>> oracle = TensorFlowOracle(lambda x: tf.stack([x[:, 0] * x[:, 1], x[:, 2]], axis=1), target=0)
    >>> values, gradients = oracle.value_and_gradient(np.ones((4, 3), np.float32))
    >>> values.shape, gradients[0].tolist()
    ((4,), [1.0, 1.0, 0.0])
    """

    def __init__(
        self,
        model: Any,
        *,
        target: Target | Literal["top"] = None,
        output: Output = None,
        layer: str | None = None,
        dtype: Any = None,
        jit_compile: bool = False,
    ) -> None:
        check_target(target)
        self._dtype = None if dtype is None else tf.as_dtype(dtype)
        if self._dtype is not None and not self._dtype.is_floating:
            raise TypeError(f"dtype={self._dtype.name}: points are floats")
        if layer is not None and not isinstance(model, keras.Layer):
            raise ValueError("layer= is for a Keras model")
        self._source: Source = source_of(model) if layer is None else LayerSource(model, layer)
        if self._dtype is not None and self._source.inputs:
            raise ValueError(
                f"dtype= is for functions: the inputs of model {self._source.name!r} have dtypes of their own"
            )
        self._target, self._output, self._jit_compile = target, output, jit_compile
        self._programs = Programs(self._source, output, target if callable(target) else None, jit_compile)
        self._weights: Mapping[str, Any] = {}

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        """Shape of each float input, without the batch axis; empty where the model names no inputs.

        Of an oracle with a layer, that of its output.
        """
        shapes = row_shapes(self._source)
        if isinstance(self._source, LayerSource):
            return {self._source.layer: shapes[self._source.layer]}
        floats = (name for name, spec in self._source.inputs.items() if spec.dtype.is_floating)
        return {name or "input": shapes[name] for name in floats}

    def predict(self, points: Points, **held: Array) -> Array:
        """Return the model's outputs (m, *output_shape) for a batch of points; a held ``target`` is ignored.

        Raises
        ------
        ValueError, TypeError
            An input does not fit, or the output is not one tensor of m rows: choose by ``output=``.
        MemoryError
            TensorFlow found no memory for the batch.
        """
        held.pop("target", None)
        batch = Batch.read(points, held, row_shapes(self._source))
        asked = batch if batch.rows else batch.one_of_zeros()
        parts = [self._run(self._programs.outputs, part, None)[1][0] for part in self._parts(asked)]
        outputs: Array = np.concatenate([_array(part) for part in parts])
        if len(outputs) != asked.rows:
            raise ValueError(not_the_batch(outputs.shape, asked.rows))
        return outputs[: batch.rows]

    def value(self, points: Points, **held: Array) -> Array:
        """Return the values (m,) of the target on a batch of points, without gradients.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`.
        """
        values: Array = self._answers(self._programs.values, points, held)[0]
        return values

    def value_and_gradient(self, points: Points, **held: Array) -> tuple[Array, Any]:
        """Return values (m,) and gradients, in the inputs' dtypes (float32 for bfloat16).

        Parameters
        ----------
        points : array (m, *shape) or mapping of such arrays
            Floats, cast to what the model takes. Gradients have the same form.
        **held : array
            The model's other inputs by name, and ``target``, integers (m,) or (m, n_axes), by row.

        Raises
        ------
        ValueError, TypeError
            An input or the target does not fit; the output is not differentiable or does not depend on
            an input.
        MemoryError
            TensorFlow found no memory for the batch.
        """
        values, gradients = self._answers(self._programs.gradients, points, held)
        return values, gradients

    def values_and_gradients(self, points: Points, targets: Any, **held: Array) -> tuple[Array, list[Any]]:
        """Return values (K, m) and K gradients for K targets: one forward pass, and K backward passes.

        The model is traced once for each number of targets.

        Parameters
        ----------
        points, **held
            As `value_and_gradient` takes them, without a held ``target``.
        targets : sequence of int, or of tuples of int
            Elements of the output, in the place of the oracle's own.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`; or ``target`` is a function, or held too.
        """
        read = read_targets(targets, held)
        if callable(self._target):
            raise ValueError("target is a function, so other targets have no meaning: drop it")
        batch = Batch.read(points, held, row_shapes(self._source))
        asked = batch if batch.rows else batch.one_of_zeros()
        parts = [self._of_targets(part, read) for part in self._parts(asked)]
        answers = []
        for k in range(len(read)):
            columns = {name: [found[k][name] for _, found in parts] for name in batch.points}
            joined = {name: np.concatenate(column)[: batch.rows] for name, column in columns.items()}
            answers.append(batch.in_their_form(joined))
        return np.concatenate([values for values, _ in parts], axis=1)[:, : batch.rows], answers

    @property
    def weights(self) -> Mapping[str, Array]:
        """A Keras model's learnt weights of floats by path, frozen or not.

        Moving statistics are not among them. A signature of a SavedModel and a function show none: theirs are
        bound into their graphs.
        """
        return {name: _array(value) for name, value in {**self._source.weights, **self._weights}.items()}

    def reweighted(self, weights: Mapping[str, Array]) -> TensorFlowOracle:
        """Return this oracle with these tensors in the place of the model's own; they enter as arguments.

        Raises
        ------
        ValueError
            A name is not among `weights`, or a shape is not that of the model's tensor.
        """
        own, replaced = self._source.weights, dict(self._weights)
        if weights and not own:
            raise ValueError(
                f"the weights of {self._source.name!r} are bound into its graph and cannot be replaced: give "
                "the oracle a Keras model (a .keras file), or convert the SavedModel to ONNX"
            )
        for name, values in weights.items():
            if name not in own:
                raise ValueError(f"the model has no weight {name!r}: it has {list(own)}")
            if np.shape(values) != tuple(own[name].shape):
                raise ValueError(
                    f"weight {name!r} has the shape {tuple(own[name].shape)} and got {np.shape(values)}"
                )
            replaced[name] = tf.cast(tf.constant(values), own[name].dtype)
        reweighted = copy.copy(self)
        reweighted._weights = replaced
        return reweighted

    def layer_output(self, **inputs: Array) -> Array:
        """Return the output (m, *shape) of ``layer`` for a batch of the model's inputs: points to smooth at.

        Raises
        ------
        ValueError
            The oracle has no layer, or an input is missing or does not fit.
        """
        source = self._source
        if not isinstance(source, LayerSource):
            raise ValueError("layer_output is for an oracle with layer=")
        specs = {name: spec for name, spec in source.inputs.items() if name != source.layer}
        if inputs.keys() != specs.keys():
            raise ValueError(f"the model takes the inputs {list(specs)}, and got {list(inputs)}")
        tensors = {}
        for name, spec in specs.items():
            array = np.asarray(inputs[name])
            check_shape(f"input {name!r}", array.shape, row_shapes(source)[name])
            tensors[name] = tf.constant(array.astype(_numpy_exact(spec.dtype), copy=False))
        return _array(source.layer_output(tensors))

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        target = name_of(self._target) if callable(self._target) else self._target
        return {
            "oracle": "mollikit_tensorflow.TensorFlowOracle",
            "model": self._source.name,
            "weights_sha256": digest({**self._source.variables, **self._weights}),
            "output": name_of(self._output) if callable(self._output) else self._output,
            "layer": self._source.layer if isinstance(self._source, LayerSource) else None,
            "target": list(target) if isinstance(target, tuple) else target,
            "dtype": None if self._dtype is None else self._dtype.name,
            "jit_compile": self._jit_compile,
            "row_by_row": self._source.row_by_row,
            "tensorflow": tf.__version__,
        }

    def __repr__(self) -> str:
        target = name_of(self._target) if callable(self._target) else self._target
        at = f", layer={self._source.layer!r}" if isinstance(self._source, LayerSource) else ""
        return f"TensorFlowOracle({self._source.name}, target={target!r}{at})"

    def _answers(self, kind: Callable[[Arguments], Program], points: Any, held: dict[str, Array]) -> Any:
        by_row = held.pop("target", None)
        if callable(self._target) and by_row is not None:
            raise ValueError("target is a function, so a target held with the rows has no meaning: drop one")
        batch = Batch.read(points, held, row_shapes(self._source))
        if batch.rows == 0:
            arguments = self._arguments(batch)
            none = {name: _array(t) for name, t in arguments.points.items()}
            return np.zeros(
                0, _numpy(kind(self._arguments(batch.one_of_zeros())).dtype)
            ), batch.in_their_form(none)
        by_rows = None if by_row is None else np.asarray(by_row)
        parts = []
        for k, part in enumerate(self._parts(batch)):
            own = by_rows if by_rows is None or part is batch else by_rows[k : k + 1]
            parts.append(self._checked(part, *self._run(kind, part, own)))
        values, gradients = parts[0]
        if len(parts) > 1:
            values = np.concatenate([v for v, _ in parts])
            gradients = {name: np.concatenate([g[name] for _, g in parts]) for name in gradients}
        return values, batch.in_their_form(gradients) if gradients else None

    def _of_targets(self, batch: Batch, targets: Array) -> tuple[Array, list[dict[str, Array]]]:
        with _computing(batch.rows):
            arguments = self._arguments(batch)
            program = self._programs.gradients_of(len(targets), arguments)
            where = np.concatenate(coordinates_of(targets, batch.rows, program.row))
            found = program.run(arguments.points, arguments.held, arguments.weights, tf.constant(where))
        self._check_shape(batch, where, _array(found[1]))
        return _array(found[0]), [{name: _array(g) for name, g in each.items()} for each in found[2]]

    def _parts(self, batch: Batch) -> list[Batch]:
        if self._source.row_by_row and batch.rows > 1:
            return [batch.row(k) for k in range(batch.rows)]
        return [batch]

    def _run(self, kind: Callable[[Arguments], Program], batch: Batch, by_row: Any) -> Any:
        with _computing(batch.rows):
            arguments = self._arguments(batch)
            program = kind(arguments)
            where = np.zeros((0, 0), np.int64)
            if kind != self._programs.outputs and not callable(self._target):
                where = coordinates(self._target, by_row, batch.rows, program.row)
            found = program.run(arguments.points, arguments.held, arguments.weights, tf.constant(where))
            return where, found

    def _checked(self, batch: Batch, where: Any, found: Any) -> tuple[Array, dict[str, Array]]:
        values, telltale = _array(found[0]), _array(found[1])
        if callable(self._target):
            if values.shape != (batch.rows,):
                raise ValueError(
                    f"the target function gave a tensor {values.shape} for {batch.rows} points: it must give "
                    f"one scalar a row, a tensor of shape ({batch.rows},)"
                )
            check_own_rows(values, telltale, batch.rows, _epsilon(found[0].dtype))
        else:
            self._check_shape(batch, where, telltale)
        return values, {name: _array(g) for name, g in found[2].items()} if len(found) > 2 else {}

    def _check_shape(self, batch: Batch, where: Array, shape: Array) -> None:
        """Refuse an output of another length than the batch, and coordinates that were not inside it."""
        if shape[0] != batch.rows:
            raise ValueError(not_the_batch(tuple(shape.tolist()), batch.rows))
        check_range(where[:, 1:], shape[1:].tolist())

    def _arguments(self, batch: Batch) -> Arguments:
        own = self._dtype or tf.as_dtype(next(iter(batch.points.values())).dtype)

        def tensor(name: str, array: Array) -> Any:
            spec = self._source.inputs.get(name)
            given = tf.as_dtype(array.dtype)
            dtype = spec.dtype if spec is not None else own if given.is_floating else given
            return tf.constant(array.astype(_numpy_exact(dtype), copy=False))

        points, held = (
            {name: tensor(name, array) for name, array in part.items()} for part in (batch.points, batch.held)
        )
        return Arguments(points, held, self._weights)


@contextmanager
def _computing(rows: int) -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(f"TensorFlow found no memory for a batch of {rows}: {error.message}") from error


def _array(tensor: Any) -> Array:
    array: Array = tensor.numpy()
    return array.astype(_numpy(tensor.dtype), copy=False)


def _numpy(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype in which results go back: float32 for what NumPy itself lacks."""
    return np.dtype(np.float32) if dtype == tf.bfloat16 else _numpy_exact(dtype)


def _epsilon(dtype: Any) -> float:
    return 2.0**-7 if dtype == tf.bfloat16 else float(np.finfo(_numpy_exact(dtype)).eps)


def _numpy_exact(dtype: Any) -> np.dtype[Any]:
    exact: np.dtype[Any] = np.dtype(dtype.as_numpy_dtype)
    return exact
