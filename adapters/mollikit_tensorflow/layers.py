from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any

import keras
import tensorflow as tf

from mollikit_tensorflow.sources import KerasSource, Tensors


class LayerSource(KerasSource):
    """A Keras model of which the points replace a layer's output, such as the embeddings of a token model.

    The graph that Keras keeps of a model is run from the layer on, and what does not pass through it (masks
    of padding, other inputs) from the inputs. No layer is called anew, which would be written down in it.

    Raises
    ------
    ValueError
        The model keeps no graph; there is no such layer, it is an input, or is called more than once; or a
        layer is in train mode unless it is told otherwise.
    TypeError
        The layer gives more than one tensor.
    """

    def __init__(self, model: Any, layer: str) -> None:
        super().__init__(model)
        if not self._symbolic:
            raise ValueError(
                f"layer= is for Functional and Sequential models, whose graph Keras keeps, and {self.name!r} "
                "is none: give the part of the model behind the layer, as a function of its output"
            )
        inputs = {symbol.name: symbol for symbol in model.inputs}
        _check_name(model, layer, inputs)
        _refuse_train_mode(model)
        answer = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
        output = _output(keras.Function(inputs, answer), model.get_layer(layer))
        self.layer = layer
        self._before = keras.Function(inputs, output)
        self._behind = keras.Function({layer: output, **inputs}, answer)
        self.inputs = {layer: tf.TensorSpec(output.shape, output.dtype, layer), **self.inputs}

    def layer_output(self, held: Tensors) -> Any:
        """Return what the layer gives for these inputs of the model."""
        return self._stateless(lambda: self._before(dict(held)), {})

    def _called(self, points: Tensors, held: Tensors) -> Any:
        return self._behind({**points, **held})

    def __getstate__(self) -> Any:
        return self.model, self.layer

    def __setstate__(self, parts: Any) -> None:
        LayerSource.__init__(self, *parts)


def _check_name(model: Any, name: str, inputs: Any) -> None:
    if name in inputs:
        raise ValueError(f"{name!r} is an input of the model: leave layer= out, and smooth it by its name")
    names = [layer.name for layer in model.layers if layer.name not in inputs]
    if name not in names:
        near = get_close_matches(name, names, n=5) or names[:10]
        raise ValueError(
            f"the model has no layer {name!r}: choose among [layer.name for layer in model.layers], such as "
            f"{near}; layers inside of a model inside cannot be chosen"
        )


def _output(graph: Any, layer: Any) -> Any:
    nodes = [node for level in graph._nodes_by_depth.values() for node in level if node.operation is layer]
    if len(nodes) != 1:
        raise ValueError(
            f"layer {layer.name!r} is called {len(nodes)} times on the way to the output, and points can "
            "stand for the output of a layer that is called once"
        )
    outputs = nodes[0].output_tensors
    if len(outputs) != 1:
        raise TypeError(
            f"layer {layer.name!r} returns {len(outputs)} tensors: choose a layer that returns one"
        )
    return outputs[0]


def _refuse_train_mode(model: Any) -> None:
    # A graph that is run from its middle tells its layers no mode, and they take their own default.
    for layer in model._flatten_layers():
        mode = inspect.signature(layer.call).parameters.get("training")
        if mode is not None and mode.default is True:
            raise ValueError(
                f"layer {layer.name!r} is in train mode unless it is told otherwise: give its call "
                "training=False as default"
            )
