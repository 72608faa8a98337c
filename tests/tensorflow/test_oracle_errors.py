from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from mollikit_tensorflow import TensorFlowOracle  # noqa: E402

from tests.tensorflow import nets  # noqa: E402

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (5, ValueError, r"target 5 is out of range: the output has 5 classes, counted from 0"),
        (-1, ValueError, r"target -1 is out of range"),
        ((1, 2), ValueError, r"2 indices.*1 axes"),
        (1.0, TypeError, "target is an int"),
        (True, TypeError, "target is an int"),
        ("tiger", TypeError, "target is an int.*'tiger'"),
        (None, ValueError, "has 5 elements a row: choose one by target="),
        (lambda y: y, ValueError, r"a tensor \(\?, 5\): it must give one scalar a row"),
        (lambda y: tf.reduce_sum(y), ValueError, r"a tensor \(\): it must"),
        (lambda y: y[:2, 0], ValueError, r"a tensor \(2,\) for 4 points"),
        (lambda y: 3.0, ValueError, "an object of type float"),
        (lambda y: tf.argmax(y, 1), TypeError, "target function's result is of int64"),
        (lambda y: y[:, 0] - tf.reduce_mean(y[:, 0]), ValueError, "mixes the rows of a batch: row 0 gives"),
        (lambda y: tf.nn.softmax(y, 0)[:, 0], ValueError, "mixes the rows of a batch"),
        (lambda y: tf.stop_gradient(y[:, 0]), ValueError, "does not depend on the points by differentiable"),
    ],
)
def test_bad_targets(target, error, message):
    with pytest.raises(error, match=message):
        TensorFlowOracle(nets.mlp(), target=target).value_and_gradient(POINTS)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.array([0, 1, 2, 5]), ValueError, "target 5 is out of range"),
        (np.array([0, 1, -2, 3]), ValueError, "target -2 is out of range"),
        (np.array([0, 1]), ValueError, r"shape \(4,\) and got \(2,\)"),
        (np.zeros((4, 2), int), ValueError, r"shape \(4,\) and got \(4, 2\)"),
        (np.zeros(4), TypeError, "takes integers and got an array of float64"),
    ],
)
def test_bad_targets_by_row(target, error, message):
    with pytest.raises(error, match=message):
        TensorFlowOracle(nets.mlp()).value_and_gradient(POINTS, target=target)
    with pytest.raises(ValueError, match="target is a function"):
        TensorFlowOracle(nets.mlp(), target=lambda y: y[:, 0]).value(POINTS, target=target)


@pytest.mark.parametrize(
    ("model", "output", "error", "message"),
    [
        (lambda x: (x, x), None, TypeError, "2 outputs, numbered from 0: choose one tensor by output="),
        (lambda x: {"a": x}, None, TypeError, r"keys \['a'\]: choose one"),
        (lambda x: {"a": x}, "b", ValueError, r"no output 'b'.*keys \['a'\]"),
        (lambda x: (x, x), 2, ValueError, "no output 2: it returns 2 outputs"),
        (lambda x: x, "logits", ValueError, r"no output 'logits': it returns a tensor \(\?, 6\)"),
        (tf.transpose, None, ValueError, r"shape \(6, None\) for any number of points: its first axis"),
        (lambda x: tf.reshape(x, (-1, 3)), None, ValueError, r"shape \(8, 3\) for 4 points"),
        (tf.reduce_sum, None, ValueError, "output is a scalar"),
        (lambda x: tf.cast(x, tf.int64), None, TypeError, "output is of int64, which has no gradient"),
        (tf.round, None, ValueError, "look for tf.argmax"),
    ],
)
def test_bad_outputs(model, output, error, message):
    with pytest.raises(error, match=message):
        TensorFlowOracle(model, target=0, output=output).value_and_gradient(POINTS)


def test_a_target_out_of_a_row_of_open_size():
    """The output's axes are known only when the model runs."""

    def model(x):
        return tf.boolean_mask(x, tf.reduce_all(x < 9, axis=0), axis=1)

    oracle = TensorFlowOracle(model)
    assert oracle.value(POINTS, target=np.array([0, 5, 5, 0])).shape == (4,)
    with pytest.raises(ValueError, match="target 6 is out of range: the output has 6 classes"):
        oracle.value(POINTS, target=np.array([0, 5, 6, 0]))


MASK = np.ones((4, 4), np.int64)
TWO = {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("points", "held", "error", "message"),
    [
        ({}, {"mask": MASK}, ValueError, "mapping of points is empty"),
        (TWO, {"mask": MASK, "b": MASK}, ValueError, "'b' is among the points and held too"),
        (TWO, {"mask": MASK[:3]}, ValueError, r"one row for each point; .*'mask': 3"),
        (TWO, {"mask": MASK.astype(str)}, TypeError, "held 'mask' is an array of <U21"),
        ({**TWO, "a": np.ones((4, 3), int)}, {"mask": MASK}, TypeError, "'a' is of int64, which cannot be"),
        ({**TWO, "a": np.ones((4, 3), complex)}, {"mask": MASK}, TypeError, "'a' is an array of complex128"),
        ({**TWO, "a": np.float32(1)}, {"mask": MASK}, ValueError, "got a scalar"),
        ({**TWO, "a": np.ones((4, 5))}, {"mask": MASK}, ValueError, r"\(m, 3\) and got \(4, 5\)"),
        ({**TWO, "a": np.ones(3)}, {"mask": MASK}, ValueError, r"and got \(3,\): add the batch axis"),
        (TWO, {}, ValueError, r"takes the inputs \['a', 'b', 'mask'\]; not given: \['mask'\]"),
        (TWO, {"mask": MASK, "extra": MASK}, ValueError, r"unknown: \['extra'\]"),
        (TWO["a"], {"mask": MASK}, ValueError, r"or the others are held: the model has \['a', 'b'\]"),
    ],
)
def test_bad_batches(points, held, error, message):
    oracle = TensorFlowOracle(nets.two_inputs(), target=0)
    for call in (oracle.value_and_gradient, oracle.predict):
        with pytest.raises(error, match=message):
            call(points, **held)


def test_a_subclass_tells_the_shape_it_was_built_for():
    oracle = TensorFlowOracle(nets.normalised(), target=0)
    assert oracle.input_shapes == {"input": (8, 8, 2)}
    with pytest.raises(ValueError, match=r"\(m, 8, 8, 2\) and got \(8, 8, 2\): add the batch axis"):
        oracle.value_and_gradient(np.ones((8, 8, 2), np.float32))


def test_a_model_without_weights_yet():
    with pytest.raises(ValueError, match="has no weights yet: call it once on an input"):
        TensorFlowOracle(keras.Sequential([keras.layers.Dense(3)]), target=0)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("model.keras", {}, TypeError, "a Keras model, a signature of a SavedModel or a function"),
        (tf.sin, {"dtype": "int32"}, TypeError, "points are floats"),
    ],
)
def test_bad_options(model, options, error, message):
    with pytest.raises(error, match=message):
        TensorFlowOracle(model, **options)
    with pytest.raises(ValueError, match="dtype= is for functions"):
        TensorFlowOracle(nets.mlp(), dtype="float64")


def raising(x):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def expanding(x):
    return tf.reduce_sum(tf.tile(x[:, None], (1, 10**12, 1)) ** 2, (1, 2))


# TensorFlow itself tries again for ten seconds before it gives up.
@pytest.mark.parametrize("model", [raising, pytest.param(expanding, marks=pytest.mark.full)])
def test_no_memory_is_a_memory_error(model):
    with pytest.raises(MemoryError, match="no memory for a batch of 4"):
        TensorFlowOracle(model).value_and_gradient(POINTS)


def test_a_gradient_that_is_nan_is_left_for_the_estimator_to_refuse():
    import mollikit as mk

    oracle = TensorFlowOracle(lambda x: tf.reduce_sum(tf.sqrt(x * 0), 1))
    assert np.isnan(oracle.value_and_gradient(POINTS)[1]).all()
    with pytest.raises(FloatingPointError, match="NaN or infinite at"):
        mk.Pathwise(mk.Gaussian(0.1)).estimate(oracle, POINTS[0], budget=mk.Evaluations(64), rng=0)
