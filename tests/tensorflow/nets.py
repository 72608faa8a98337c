"""Small Keras nets with the weights of tests/onnx/models.py, or of fixed seeds."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from onnx import numpy_helper

from tests.onnx import models


def _weights(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def seeded(model, seed=0):
    """Draw every variable of floats anew, variances positive."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if tf.as_dtype(variable.dtype).is_floating:
            drawn = rng.standard_normal(variable.shape) / np.sqrt(max(np.prod(variable.shape[:-1]), 1))
            variable.assign(np.abs(drawn) + 0.5 if variable.name.endswith("variance") else drawn)
    return model


def mlp(dtype="float32"):
    """x (n, 6) -> logits (n, 5): tests.onnx.models.mlp."""
    w = _weights(models.mlp())
    net = keras.Sequential(
        [
            keras.Input((6,), dtype="float32" if dtype.startswith("mixed") else dtype, name="x"),
            layers.Dense(16, activation="tanh", dtype=dtype, name="first"),
            layers.Dense(5, dtype=dtype, name="second"),
        ],
        name="mlp",
    )
    net.set_weights([w["W1"], w["b1"], w["W2"], w["b2"]])
    return net


def cnn():
    """image (n, 2, 8, 8) -> logits (n, 4): tests.onnx.models.cnn."""
    w = _weights(models.cnn())
    net = keras.Sequential(
        [
            keras.Input((2, 8, 8), name="image"),
            layers.Permute((2, 3, 1)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="first"),
            layers.AveragePooling2D(2),
            layers.Conv2D(4, 3, use_bias=False, name="second"),
            layers.GlobalAveragePooling2D(),
        ],
        name="cnn",
    )
    net.set_weights([w["K1"].transpose(2, 3, 1, 0), w["c1"], w["K2"].transpose(2, 3, 1, 0)])
    return net


def two_inputs():
    """tests.onnx.models.two_inputs, as a Functional model."""
    (weight,) = _weights(models.two_inputs()).values()
    a, b, mask = (
        keras.Input((3,), name="a"),
        keras.Input((4,), name="b"),
        keras.Input((4,), dtype="int64", name="mask"),
    )
    hidden = layers.Dense(4, activation="tanh", use_bias=False)(a)
    net = keras.Model([a, b, mask], hidden * b + keras.ops.cast(mask, "float32") * b)
    net.set_weights([weight])
    return net


@keras.saving.register_keras_serializable("mollikit tests")
class Normalised(keras.Model):
    """image (n, 8, 8, 2) -> logits (n, 4), with BatchNorm and dropout, written as a subclass."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(6, 3, padding="same")
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(4)

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], 6))
        self.head.build((None, 96))
        super().build(shape)

    def call(self, image, training=False):
        features = keras.activations.sigmoid(self.norm(self.conv(image), training=training))
        features = keras.ops.average_pool(self.drop(features, training=training), 2)
        return self.head(keras.ops.reshape(features, (-1, 96)))


def normalised():
    net = Normalised()
    net.build((None, 8, 8, 2))
    return seeded(net, 1)
