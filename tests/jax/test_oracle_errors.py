from __future__ import annotations

import dataclasses

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax import numpy as jnp  # noqa: E402
from mollikit_jax import JaxOracle  # noqa: E402

import mollikit as mk  # noqa: E402
from tests.jax import nets  # noqa: E402

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (5, ValueError, r"target 5 is out of range: the output has 5 classes, counted from 0"),
        (-1, ValueError, r"target -1 is out of range"),
        ((1, 2), ValueError, r"2 indices.*1 axes"),
        (1.0, TypeError, "target is an int"),
        ("tiger", TypeError, "target is an int.*'tiger'"),
        (None, ValueError, "has 5 elements a row: choose one by target="),
        (lambda y: y, ValueError, r"a tensor \(4, 5\) for 4 points: it must give one scalar a row"),
        (lambda y: y.sum(), ValueError, r"a tensor \(\) for 4 points"),
        (lambda y: 3.0, ValueError, "an object of type float"),
        (lambda y: y.argmax(1), TypeError, "target function's result is of int32"),
        (lambda y: y[:, 0] - y[:, 0].mean(), ValueError, "mixes the rows of a batch: row 0 gives"),
        (lambda y: jax.nn.softmax(y, 0)[:, 0], ValueError, "mixes the rows of a batch"),
        (lambda y: jax.lax.stop_gradient(y[:, 0]), ValueError, "does not depend on the points by diff"),
    ],
)
def test_bad_targets(target, error, message):
    with pytest.raises(error, match=message):
        JaxOracle(nets.mlp, nets.mlp_params(), target=target).value_and_gradient(POINTS)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.array([0, 1, 2, 5]), ValueError, "target 5 is out of range"),
        (np.array([0, 1, -2, 3]), ValueError, "target -2 is out of range"),
        (np.array([0, 1]), ValueError, r"shape \(4,\) and got \(2,\)"),
        (np.zeros(4), TypeError, "takes integers and got an array of float64"),
    ],
)
def test_bad_targets_by_row(target, error, message):
    with pytest.raises(error, match=message):
        JaxOracle(nets.mlp, nets.mlp_params()).value_and_gradient(POINTS, target=target)
    with pytest.raises(ValueError, match="target is a function"):
        JaxOracle(nets.mlp, nets.mlp_params(), target=lambda y: y[:, 0]).value(POINTS, target=target)


@dataclasses.dataclass
class Answer:
    logits: object


@pytest.mark.parametrize(
    ("model", "output", "error", "message"),
    [
        (lambda x: (x, x), None, TypeError, "2 outputs, numbered from 0: choose one array by output="),
        (lambda x: {"a": x}, "b", ValueError, r"no output 'b'.*keys \['a'\]"),
        (lambda x: (x, x), 2, ValueError, "no output 2: it returns 2 outputs"),
        (lambda x: x, "logits", ValueError, r"no output 'logits': it returns a tensor \(4, 6\)"),
        (Answer, None, TypeError, r"returns a Answer with \['logits'\]: choose one array"),
        (lambda x: x.T, None, ValueError, r"shape \(6, 4\) for 4 points: its first axis must be the batch"),
        (lambda x: x.sum(), None, ValueError, r"shape \(\) for 4 points"),
        (lambda x: x.astype(int), None, TypeError, "output is of int32, which has no gradient"),
        (jnp.round, None, ValueError, "look for jnp.argmax"),
        (lambda x: jax.jit(lambda x: (x > 0).astype(float))(x), None, ValueError, "look for jnp.argmax"),
    ],
)
def test_bad_outputs(model, output, error, message):
    with pytest.raises(error, match=message):
        JaxOracle(model, target=0, output=output).value_and_gradient(POINTS)


TWO = {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 4), np.float32)}
MASK = np.ones((4, 4), np.int64)


def test_an_input_that_the_output_does_not_depend_on():
    oracle = JaxOracle(lambda a, b, mask: a * mask[:, :3], target=0)
    with pytest.raises(ValueError, match="does not depend on input 'b': hold it"):
        oracle.value_and_gradient(TWO, mask=MASK)
    np.testing.assert_array_equal(
        oracle.value_and_gradient({"a": TWO["a"]}, b=TWO["b"], mask=MASK)[1]["a"], np.eye(3)[[0] * 4]
    )


def test_zeros_that_come_out_are_given():
    """A dead unit has the gradient zero, and that is the truth."""
    oracle = JaxOracle(lambda x: jax.nn.relu(x - 100).sum(1))
    assert np.all(oracle.value_and_gradient(POINTS)[1] == 0)


@pytest.mark.parametrize(
    ("points", "held", "error", "message"),
    [
        ({}, {"mask": MASK}, ValueError, "mapping of points is empty"),
        (TWO, {"mask": MASK, "b": MASK}, ValueError, "'b' is among the points and held too"),
        (TWO, {"mask": MASK[:3]}, ValueError, r"one row for each point; .*'mask': 3"),
        ({**TWO, "a": np.ones((4, 3), int)}, {"mask": MASK}, TypeError, "'a' is of int64, which cannot be"),
        (TWO, {}, TypeError, "mask"),
        (TWO, {"mask": MASK, "extra": MASK}, TypeError, "extra"),
    ],
)
def test_bad_batches(points, held, error, message):
    oracle = JaxOracle(nets.two_inputs, nets.two_inputs_params(), target=0)
    for call in (oracle.value_and_gradient, oracle.predict):
        with pytest.raises(error, match=message):
            call(points, **held)


def test_bad_options():
    with pytest.raises(TypeError, match="function is called on points, and got a str"):
        JaxOracle("model")
    with pytest.raises(TypeError, match="dtype=int32: points are floats"):
        JaxOracle(jnp.sin, dtype=np.int32)


def test_an_error_inside_the_model_carries_through():
    def model(x):
        raise KeyError("from inside the model")

    with pytest.raises(KeyError, match="from inside the model"):
        JaxOracle(model, target=0).value_and_gradient(POINTS)


def test_no_memory_is_a_memory_error():
    def expanding(x):
        return jnp.tile(x[:, None], (1, 10**7, 10**6)).max((1, 2))

    with pytest.raises(MemoryError, match="no memory for a batch of 4"):
        JaxOracle(expanding, jit=False).value_and_gradient(POINTS)


def test_a_gradient_that_is_nan_is_left_for_the_estimator_to_refuse():
    oracle = JaxOracle(lambda x: jnp.sqrt(x * 0).sum(1))
    assert np.isnan(oracle.value_and_gradient(POINTS)[1]).all()
    with pytest.raises(FloatingPointError, match="NaN or infinite at"):
        mk.Pathwise(mk.Gaussian(0.1)).estimate(oracle, POINTS[0], budget=mk.Evaluations(64), rng=0)
