"""Smoothing at a named layer of a Keras model, such as the embeddings of a token model."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from mollikit_tensorflow import TensorFlowOracle  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.testing import OracleConformance, assert_rows_close  # noqa: E402
from tests.core.test_determinism import bits  # noqa: E402

IDS = np.array([[3, 1, 7, 2, 0, 0], [5, 5, 1, 0, 0, 0], [1, 2, 3, 4, 5, 6]], np.int32)
EXTRA = np.random.default_rng(2).standard_normal((3, 2)).astype(np.float32)


def tokens(mask=True):
    """Ids, of which zeros may be padding, and two numbers beside; the dropout must not act."""
    keras.utils.set_random_seed(4)
    ids, extra = keras.Input((6,), dtype="int32", name="ids"), keras.Input((2,), name="extra")
    embedded = keras.layers.Embedding(9, 4, mask_zero=mask, name="embeddings")(ids)
    hidden = keras.layers.LSTM(5)(keras.layers.Dropout(0.5)(embedded))
    joined = keras.layers.BatchNormalization()(keras.layers.Concatenate()([hidden, extra]))
    return keras.Model({"ids": ids, "extra": extra}, keras.layers.Dense(3, name="head")(joined))


def sequential():
    keras.utils.set_random_seed(5)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((6,), dtype="int32", name="ids"), layers.Embedding(9, 4, name="embeddings"),
         layers.Flatten(), layers.Dense(3)]
    )  # fmt: skip


class TestConformance(OracleConformance):
    def oracle(self):
        return TensorFlowOracle(tokens(), layer="embeddings")

    def points(self, m, rng):
        return rng.standard_normal((m, 6, 4)).astype(np.float32)

    def held(self, m, rng):
        return {
            "ids": rng.integers(0, 9, (m, 6)).astype(np.int32),
            "extra": rng.standard_normal((m, 2)).astype(np.float32),
            "target": rng.integers(0, 3, m),
        }


@pytest.mark.parametrize("mask", [True, False])
def test_the_gradient_is_that_of_the_model_behind_the_layer(mask):
    model, held = tokens(mask), {"ids": IDS, "extra": EXTRA}
    oracle = TensorFlowOracle(model, layer="embeddings", target=1)
    points = oracle.layer_output(**held)
    assert points.shape == (3, 6, 4)
    assert oracle.input_shapes == {"embeddings": (6, 4)}
    values, gradients = oracle.value_and_gradient(points, **held)
    np.testing.assert_allclose(values, model({"ids": IDS, "extra": EXTRA})[:, 1], rtol=1e-5)
    # The gradient with respect to the table, from the ids, sums that of the positions of each id.
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model({"ids": IDS, "extra": EXTRA}, training=False)[:, 1])
    table = tf.convert_to_tensor(tape.gradient(value, model.get_layer("embeddings").embeddings)).numpy()
    summed = np.zeros_like(table)
    np.add.at(summed, IDS.ravel(), gradients.reshape(-1, 4))
    assert_rows_close(summed, table, np.float32, what="gradients")
    assert (gradients[0, 4:] == 0).all() == mask, "padding is masked"


def test_embeddings_are_smoothed_with_the_weights_and_the_model_is_untouched():
    model, held = tokens(), {"ids": IDS[0], "extra": EXTRA[0]}
    layer = model.get_layer("embeddings")
    before = (
        [v.numpy().tobytes() for v in model.variables],
        len(layer._inbound_nodes),
        len(layer._outbound_nodes),
    )
    oracle = TensorFlowOracle(model, layer="embeddings", target="top")
    start = oracle.layer_output(ids=IDS[:1], extra=EXTRA[:1])[0]
    law = mk.Gaussian(mk.OfMagnitude(0.1))
    smooth = mk.Pathwise(mk.Gaussian(0.1), weights={"embeddings*": None, "*": law}, block=16)
    estimate = smooth.estimate(oracle, start, held=held, budget=mk.Evaluations(64), rng=0)
    with ThreadPoolExecutor(4) as executor:
        again = smooth.estimate(oracle, start, held=held, budget=mk.Evaluations(64), rng=0, executor=executor)
    assert bits(again) == bits(estimate)
    assert estimate.gradient.shape == (6, 4)
    assert (estimate.gradient[4:] == 0).all()
    after = (
        [v.numpy().tobytes() for v in model.variables],
        len(layer._inbound_nodes),
        len(layer._outbound_nodes),
    )
    assert after == before


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, saving
def test_a_sequential_model_and_another_process():
    model = sequential()
    oracle = TensorFlowOracle(model, layer="embeddings", target=2)
    points = oracle.layer_output(ids=IDS)
    values, gradients = oracle.value_and_gradient(points, ids=IDS)
    np.testing.assert_allclose(values, model(IDS)[:, 2], rtol=1e-5)
    expected = np.broadcast_to(model.layers[-1].kernel.numpy()[:, 2].reshape(6, 4), (3, 6, 4))
    np.testing.assert_allclose(gradients, expected, rtol=1e-6)
    sent = pickle.loads(pickle.dumps(oracle))
    np.testing.assert_array_equal(sent.value_and_gradient(points, ids=IDS)[1], gradients)
    assert repr(oracle) == f"TensorFlowOracle({model.name}, target=2, layer='embeddings')"
    assert oracle.describe()["layer"] == "embeddings"


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(x)


class Noisy(keras.layers.Layer):
    def call(self, x, training=True):
        return x * 2 if training else x


def built(model):
    model(np.ones((2, 3), np.float32))
    return model


def twice():
    x, layer = keras.Input((3,), name="x"), keras.layers.Dense(3, name="both")
    return keras.Model(x, layer(layer(x)))


REFUSED = {
    "function": (lambda: lambda x: x, "layer", "layer= is for a Keras model"),
    "no graph": (lambda: built(Own()), "head", "is for Functional and Sequential models"),
    "unknown": (sequential, "embedding", r"no layer 'embedding': choose among .*'embeddings'"),
    "input": (sequential, "ids", "'ids' is an input of the model: leave layer= out"),
    "twice": (twice, "both", "layer 'both' is called 2 times on the way to the output"),
    "mode": (
        lambda: keras.Sequential([keras.Input((3,)), Noisy(name="noisy"), keras.layers.Dense(2, name="d")]),
        "d",
        "layer 'noisy' is in train mode unless",
    ),
}


@pytest.mark.parametrize(("make", "layer", "message"), REFUSED.values(), ids=REFUSED)
def test_layers_that_cannot_be(make, layer, message):
    with pytest.raises(ValueError, match=message):
        TensorFlowOracle(make(), layer=layer)


def test_a_layer_of_several_outputs():
    x = keras.Input((4, 3), name="x")
    outputs = keras.layers.LSTM(5, return_state=True, name="states")(x)
    with pytest.raises(TypeError, match="layer 'states' returns 3 tensors: choose a layer that returns one"):
        TensorFlowOracle(keras.Model(x, outputs[0]), layer="states")


def test_inputs_that_do_not_fit():
    oracle = TensorFlowOracle(sequential(), layer="embeddings", target=0)
    with pytest.raises(ValueError, match=r"takes the inputs \['ids'\], and got \['tokens'\]"):
        oracle.layer_output(tokens=IDS)
    with pytest.raises(ValueError, match=r"input 'ids' takes a batch of shape \(m, 6\) and got \(3, 5\)"):
        oracle.layer_output(ids=IDS[:, :5])
    with pytest.raises(ValueError, match="the others are held"):
        oracle.value_and_gradient(np.ones((3, 6, 4), np.float32))
    with pytest.raises(ValueError, match="layer_output is for an oracle with layer="):
        TensorFlowOracle(sequential(), target=0).layer_output(ids=IDS)
