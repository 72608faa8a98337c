"""Keras nets at test size, written down by Keras and by tf2onnx, with TensorFlow's gradients in float64."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

from tests.onnx.architectures.truth import TOLERANCE, relative_error

_NEAR = 1e-6


def _cnn(image: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(8, 3, strides=2, activation="elu")(x)
    x = layers.AveragePooling2D(2, strides=1, padding="same")(x)
    return layers.Dense(5, activation="softmax")(layers.Flatten()(x))


def _block(x: keras.KerasTensor, width: int, stride: int) -> keras.KerasTensor:
    """An inverted residual, after Sandler et al. 2018, "MobileNetV2"."""
    y = layers.Conv2D(3 * x.shape[-1], 1, use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    if stride == 2:
        y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
    y = layers.DepthwiseConv2D(3, stride, padding="valid" if stride == 2 else "same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(y))
    return y if stride == 2 else layers.Add()([x, y])


def _mobile(image: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    x = _block(_block(x, 4, 1), 6, 2)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(6, 1, activation="sigmoid")(gate)])
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(x))


def _upsampling(image: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.SeparableConv2D(6, 3, padding="same", activation="tanh")(image)
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(layers.MaxPooling2D()(x))
    z = layers.UpSampling2D(2, interpolation="bilinear")(layers.AveragePooling2D(2)(x))
    x = layers.Concatenate()([x, layers.LayerNormalization()(y), z])
    return layers.Dense(5)(layers.GlobalMaxPooling2D()(layers.Dropout(0.3)(x)))


def _lstm(frames: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(frames)
    return layers.Dense(4)(layers.LSTM(6)(x))


def _gru(frames: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv1D(6, 3, padding="causal", activation="swish")(frames)
    return layers.Dense(4)(layers.GRU(5)(x))


def _attention(frames: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Dense(8)(frames)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    return layers.Dense(4)(layers.GlobalAveragePooling1D()(x))


NETS: dict[str, tuple[Callable[[keras.KerasTensor], keras.KerasTensor], tuple[int, ...]]] = {
    "cnn": (_cnn, (12, 12, 3)),
    "mobile": (_mobile, (16, 16, 3)),
    "upsampling": (_upsampling, (8, 8, 3)),
    "lstm": (_lstm, (7, 3)),
    "gru": (_gru, (7, 3)),
    "attention": (_attention, (7, 3)),
}


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@cache
def net(name: str, dtype: str = "float32") -> keras.Model:
    """The net with weights and statistics of a fixed seed; they are those of float32 in float64 too."""
    build, shape = NETS[name]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        points = keras.Input(shape, name="points", dtype=dtype)
        model = keras.Model(points, build(points))
    finally:
        keras.config.set_dtype_policy(policy)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        size = np.prod(weight.shape[:-1]) or 1
        drawn = rng.standard_normal(weight.shape) / np.sqrt(size) if len(weight.shape) > 1 else None
        vector = rng.uniform(0.5, 1.5, weight.shape)
        if weight.dtype.startswith("float"):
            weight.assign((vector if drawn is None else drawn).astype(np.float32))
    return model


def by_keras(name: str, path: Path) -> onnx.ModelProto:
    """``model.export`` after one call."""
    return exported(net(name), NETS[name][1], path)


def exported(model: keras.Model, shape: tuple[int, ...], path: Path, **options: int) -> onnx.ModelProto:
    """What Keras writes down of any model, for points of a shape."""
    with _quietly():
        model(np.zeros((1, *shape), np.float32))
        model.export(path, format="onnx", verbose=False, **options)
    return onnx.load(path)


def by_tf2onnx(name: str, opset: int) -> onnx.ModelProto:
    """Tf2onnx itself, at an operator set of one's choice."""
    signature = [tf.TensorSpec((None, *NETS[name][1]), tf.float32, name="points")]
    with _quietly():
        model, _ = tf2onnx.convert.from_function(
            tf.function(net(name), input_signature=signature), input_signature=signature, opset=opset
        )
    return model


def points_and_gradient(name: str, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, cotangents and the gradient, at points away from the kinks as in `truth`."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((batch, *NETS[name][1])).astype(np.float32)
        near = points * (1 + _NEAR * rng.uniform(-1, 1, points.shape))
        cotangent = rng.standard_normal((batch, *net(name).output_shape[1:])).astype(np.float32)
        exact, moved = (_gradient(name, x.astype(np.float64), cotangent) for x in (points, near))
        if relative_error(moved, exact) <= TOLERANCE:
            return points, cotangent, exact
    raise AssertionError("every input drawn is at a kink")


def _gradient(name: str, points: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    x = tf.constant(points)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = net(name, "float64")(x, training=False)
    return tape.gradient(y, x, tf.constant(cotangent, tf.float64)).numpy()
