from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import tensorflow as tf

from mollikit.batches import Shape
from mollikit.targets import name_of

Tensors = Mapping[str, Any]


class Source(Protocol):
    """A model as a function of tensors, to be called while it is traced.

    Attributes
    ----------
    name : str
        What the model is called.
    inputs : mapping of tf.TensorSpec
        The model's inputs by name, the only one that is known under the empty name; empty where none is.
    row_by_row : bool
        Whether the model takes a single row at a time.
    """

    name: str
    inputs: Mapping[str, Any]
    row_by_row: bool

    @property
    def variables(self) -> Mapping[str, Any]:
        """Values of the model's variables by name, where they are known."""
        ...

    @property
    def weights(self) -> Mapping[str, Any]:
        """Values of those that are learnt and of floats, which `outputs` can replace, if any."""
        ...

    def outputs(self, points: Tensors, held: Tensors, weights: Tensors) -> Any:
        """Outputs of the model, with these weights in the place of its own of the same names."""
        ...


class KerasSource:
    """A Keras model or layer, called with ``training=False`` in a stateless scope: no variable is written.

    Raises
    ------
    ValueError
        The model is not built, or Keras runs on another framework.
    """

    row_by_row = False

    def __init__(self, model: Any) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=tensorflow before importing it"
            )
        self.name = str(model.name)
        if not model.built:
            raise ValueError(
                f"model {self.name!r} has no weights yet: call it once on an input, or load them, first"
            )
        self.model = model
        self._symbolic = isinstance(model, keras.Sequential | keras.Function) and bool(model.inputs)
        self.inputs: Mapping[str, Any] = {}
        if self._symbolic:
            self.inputs = {t.name: tf.TensorSpec(t.shape, t.dtype, t.name) for t in model.inputs}
        elif "input_shape" in (built := model.get_build_config() or {}):
            self.inputs = {"": tf.TensorSpec((None, *built["input_shape"][1:]), model.compute_dtype)}
        self.row_by_row = _row_by_row(self.inputs)

    @property
    def variables(self) -> Mapping[str, Any]:
        return {variable.path: variable.value for variable in self.model.variables}

    @property
    def weights(self) -> Mapping[str, Any]:
        # A layer's own list: freezing a layer takes its variables out of `trainable_variables`.
        layers = self.model._flatten_layers()
        learnt = {id(variable) for layer in layers for variable in layer._trainable_variables}
        own = {variable.path: variable.value for variable in self.model.variables if id(variable) in learnt}
        return {path: value for path, value in own.items() if value.dtype.is_floating}

    def outputs(self, points: Tensors, held: Tensors, weights: Tensors) -> Any:
        return self._stateless(lambda: self._called(points, held), weights)

    def _stateless(self, call: Callable[[], Any], weights: Tensors) -> Any:
        before = [(v, tf.convert_to_tensor(weights.get(v.path, v.value))) for v in self.model.variables]
        with keras.StatelessScope(state_mapping=before) as scope:
            outputs = call()
        written = [v.path for v, value in before if scope.get_current_value(v) is not value]
        if written:
            raise ValueError(
                f"the model writes on {', '.join(map(repr, written[:3]))} when called with training=False: a "
                "layer that is random, counts, or is called with training=True inside the model makes the "
                "answer depend on other rows or calls; build the model without it"
            )
        return outputs

    def _called(self, points: Tensors, held: Tensors) -> Any:
        if self._symbolic:
            return self.model(self._given({**points, **held}), training=False)
        return _called(self.model, points, held, training=False)

    def _given(self, tensors: Tensors) -> Any:
        if isinstance(self.model, keras.Sequential):
            return tensors[self.model.inputs[0].name]
        return keras.tree.map_structure(lambda symbol: tensors[symbol.name], self.model.input)

    def __getstate__(self) -> Any:
        return self.model

    def __setstate__(self, model: Any) -> None:
        KerasSource.__init__(self, model)


class SignatureSource:
    """A signature of a SavedModel, or another concrete function: named tensors in, named tensors out.

    Raises
    ------
    ValueError
        Its batch axis is fixed above 1, or its variables are gone.
    """

    def __init__(self, function: Any, name: str = "signature") -> None:
        self.name, self.function = name, function
        try:
            self.variables  # noqa: B018 - a look at them
        except AssertionError:
            raise ValueError(
                "the variables of this signature were deleted with the model that it belongs to: keep what "
                "tf.saved_model.load returned, or open the folder by open_saved_model(path)"
            ) from None
        specs = tf.nest.flatten(function.structured_input_signature)
        self.inputs: Mapping[str, Any] = {spec.name: spec for spec in specs}
        self.row_by_row = _row_by_row(self.inputs)

    @property
    def variables(self) -> Mapping[str, Any]:
        return {variable.name: variable for variable in self.function.variables}

    @property
    def weights(self) -> Mapping[str, Any]:
        return {}

    def outputs(self, points: Tensors, held: Tensors, weights: Tensors) -> Any:
        outputs = self.function(**points, **held)
        # Most signatures have one output, under a name that nobody chose.
        return next(iter(outputs.values())) if isinstance(outputs, dict) and len(outputs) == 1 else outputs


class FunctionSource:
    """A tf.function, a tf.Module or a Python function, called as it is."""

    row_by_row = False
    inputs: Mapping[str, Any] = {}

    def __init__(self, function: Any) -> None:
        self.name, self.function = name_of(function), function
        graph = isinstance(function, tf.types.experimental.PolymorphicFunction)
        self._traced = function if graph else tf.function(function)

    @property
    def variables(self) -> Mapping[str, Any]:
        module = isinstance(self.function, tf.Module)
        return {variable.name: variable for variable in self.function.variables} if module else {}

    @property
    def weights(self) -> Mapping[str, Any]:
        return {}

    def outputs(self, points: Tensors, held: Tensors, weights: Tensors) -> Any:
        return _called(self._traced, points, held)

    def __getstate__(self) -> Any:
        return self.function

    def __setstate__(self, function: Any) -> None:
        FunctionSource.__init__(self, function)


def source_of(model: Any) -> Source:
    """Return a model as a source.

    Raises
    ------
    TypeError
        It is none of those that are known.
    """
    if isinstance(model, SignatureSource):
        return model
    if isinstance(model, keras.Layer):
        return KerasSource(model)
    if isinstance(model, tf.types.experimental.ConcreteFunction):
        return SignatureSource(model)
    if not callable(model):
        raise TypeError(
            f"model is a Keras model, a signature of a SavedModel or a function, and got a "
            f"{type(model).__name__}: of what tf.saved_model.load returns, give "
            '.signatures["serving_default"], or open the folder by open_saved_model(path)'
        )
    return FunctionSource(model)


def row_shapes(source: Source) -> dict[str, Shape]:
    """Shapes of the inputs without the batch axis, None where open; empty where they are not known."""
    return {name: tuple(spec.shape.as_list()[1:]) for name, spec in source.inputs.items()}


def digest(variables: Mapping[str, Any]) -> str | None:
    """Sha256 of the variables' names and values, in hexadecimal; None where there are none."""
    sha = hashlib.sha256()
    for name, variable in variables.items():
        value = variable.numpy()
        sha.update(f"{name} {value.dtype} {value.shape}".encode())
        sha.update(value.tobytes())
    return sha.hexdigest() if variables else None


def _called(model: Callable[..., Any], points: Tensors, held: Tensors, **options: Any) -> Any:
    if "" in points:
        return model(points[""], **held, **options)
    return model(**points, **held, **options)


def _row_by_row(specs: Mapping[str, Any]) -> bool:
    single = False
    for name, spec in specs.items():
        if spec.shape.rank is None:
            raise ValueError(
                f"input {name!r} is of unknown rank: give it a shape, of which the batch may be None"
            )
        if spec.shape.rank == 0:
            raise ValueError(f"input {name!r} is a scalar without a batch axis: make it part of the model")
        size = spec.shape[0]
        if size is not None and size > 1:
            raise ValueError(
                f"input {name!r} has its first axis, the batch, fixed at {size}: leave it open (None)"
            )
        single = single or size == 1
    return single
