"""The caller's model, its random numbers and its modes are never touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from mollikit_tensorflow import TensorFlowOracle  # noqa: E402

from tests.tensorflow import nets  # noqa: E402

IMAGES = np.random.default_rng(9).standard_normal((4, 8, 8, 2)).astype(np.float32)


def snapshot(model):
    """Everything of a model that a careless oracle might change, and TensorFlow's own generator."""
    layers = model._flatten_layers()
    return {
        "bytes": {v.path: v.value.numpy().tobytes() for v in model.variables},
        "objects": [id(v) for v in model.variables],
        "trainable": {v.path: v.trainable for v in model.variables},
        "layers": [(layer.name, layer.trainable, layer.dtype_policy.name) for layer in layers],
        "nodes": [len(layer._inbound_nodes) for layer in model._flatten_layers()],
        "losses": len(model.losses),
        "rng": tf.random.get_global_generator().state.numpy().tobytes(),
    }


def by_hand(model, batch, weights=None):
    """The gradient of output 1 as a user would take it, with these weights assigned."""
    for path, values in (weights or {}).items():
        next(v for v in model.variables if v.path == path).assign(values)
    points = tf.constant(batch)
    with tf.GradientTape() as tape:
        tape.watch(points)
        values = model(points, training=False)[:, 1]
    return values.numpy(), tape.gradient(values, points).numpy()


def test_sixty_calls_from_twelve_threads():
    model = nets.normalised()
    model.norm.trainable = False
    before = snapshot(model)
    oracle = TensorFlowOracle(model, target=1)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((3, 8, 8, 2)).astype(np.float32) for _ in range(60)]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(oracle.value_and_gradient, batches))
    assert snapshot(model) == before
    for batch, (values, gradients) in zip(batches, results, strict=True):
        expected = by_hand(model, batch)
        np.testing.assert_allclose(values, expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradients, expected[1], rtol=1e-4, atol=1e-6)


def test_sixty_models_from_twelve_threads():
    """Each call with weights of its own, all at once: what `assign` on a shared model gets wrong."""
    model = nets.normalised()
    before = snapshot(model)
    oracle = TensorFlowOracle(model, target=1)
    own = oracle.weights
    rng = np.random.default_rng(0)
    weights = [
        {path: values + 0.1 * rng.standard_normal(values.shape).astype("f") for path, values in own.items()}
        for _ in range(60)
    ]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda w: oracle.reweighted(w).value_and_gradient(IMAGES), weights))
    assert snapshot(model) == before
    for drawn, (values, gradients) in zip(weights, results, strict=True):
        expected = by_hand(model, IMAGES, drawn)
        np.testing.assert_allclose(values, expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients, expected[1], rtol=1e-4, atol=1e-6)


def test_weights_are_those_that_are_learnt_frozen_or_not():
    model = nets.normalised()
    names = set(TensorFlowOracle(model).weights)
    assert names == {v.path for v in model.trainable_variables}
    assert not any("moving" in name for name in names)
    model.trainable = False
    assert set(TensorFlowOracle(model).weights) == names


def test_some_weights_and_their_errors():
    model = nets.mlp()
    oracle = TensorFlowOracle(model, target=1)
    x = np.ones((2, 6), np.float32)
    zero = oracle.reweighted({"mlp/second/kernel": np.zeros((16, 5))})
    assert np.all(zero.value_and_gradient(x)[1] == 0)
    np.testing.assert_allclose(zero.value(x), model.variables[3].value.numpy()[1], rtol=1e-6)
    assert np.any(oracle.value_and_gradient(x)[1] != 0)
    assert zero.describe()["weights_sha256"] != oracle.describe()["weights_sha256"]
    with pytest.raises(ValueError, match=r"no weight 'kernel': it has \['mlp/first/kernel'"):
        oracle.reweighted({"kernel": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'mlp/first/bias' has the shape \(16,\) and got \(3,\)"):
        oracle.reweighted({"mlp/first/bias": np.zeros(3)})


def test_training_in_place_is_seen():
    model = nets.mlp()
    oracle = TensorFlowOracle(model, target=1)
    x = np.ones((2, 6), np.float32)
    first = oracle.value_and_gradient(x)[1]
    model.variables[0].assign(2 * model.variables[0])
    second = oracle.value_and_gradient(x)[1]
    np.testing.assert_allclose(second, TensorFlowOracle(model, target=1).value_and_gradient(x)[1], rtol=1e-6)
    assert np.abs(second - first).max() > 1e-2


def test_an_error_inside_the_model_carries_through():
    def model(x):
        raise KeyError("from inside the model")

    with pytest.raises(KeyError, match="from inside the model"):
        TensorFlowOracle(model, target=0).value_and_gradient(IMAGES)


class Counting(keras.layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(name="calls", initializer="zeros", trainable=False)
        super().build(shape)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x * self.calls


class Restless(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)
        super().build(shape)

    def call(self, x):
        return self.norm(x, training=True)


class Random(Restless):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.Dropout(0.5)


@pytest.mark.parametrize(
    ("layer", "name"), [(Counting, "calls"), (Restless, "moving_mean"), (Random, "seed")]
)
def test_models_that_write_on_themselves_are_refused_and_not_written_on(layer, name):
    model = keras.Sequential([keras.Input((6,)), layer()])
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"writes on .*{name}.*build the model without it"):
        TensorFlowOracle(model, target=0).value_and_gradient(np.ones((4, 6), np.float32))
    assert snapshot(model) == before
