from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from mollikit_tensorflow import TensorFlowOracle  # noqa: E402

import mollikit as mk  # noqa: E402
from tests.onnx import models  # noqa: E402
from tests.tensorflow import nets  # noqa: E402

# Keras's own way of saving a variable, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning:keras")

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(9).standard_normal((4, 8, 8, 2)).astype(np.float32)


def test_values_and_gradients_by_hand():
    target = np.array([0, 4, 2, 2])
    values, gradients = TensorFlowOracle(nets.mlp()).value_and_gradient(POINTS, target=target)
    expected, by_hand = models.mlp_by_hand(POINTS.astype(np.float64), target)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, by_hand, rtol=1e-5, atol=1e-6)


def test_neither_batch_sizes_nor_targets_retrace():
    traces = []

    def model(x):
        traces.append(x.shape)
        return tf.tanh(x)

    oracle = TensorFlowOracle(model)
    for m in (1, 2, 5, 7):
        oracle.value_and_gradient(np.ones((m, 3), np.float32), target=np.arange(m) % 3)
    assert len(traces) == 1
    assert traces[0].as_list() == [None, 3]
    fixed = TensorFlowOracle(model, target="top")
    for x in POINTS[:, :3]:
        fixed.anchored(x).value_and_gradient(POINTS[:, :3])
    assert len(traces) == 2, "once by each oracle"


@pytest.mark.parametrize("structure", ["list", "dict", "tuple"])
def test_named_inputs_of_keras(structure):
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    inputs = {"list": [a, b], "dict": {"a": a, "b": b}, "tuple": (a, b)}[structure]
    model = keras.Model(inputs, keras.layers.Concatenate()([a**2, b]))
    oracle = TensorFlowOracle(model, target=1)
    assert oracle.input_shapes == {"a": (3,), "b": (4,)}
    expected = 2 * POINTS[:, :3] * np.eye(3)[1]
    both = oracle.value_and_gradient
    with pytest.raises(ValueError, match="does not depend on input 'b': hold it"):
        TensorFlowOracle(keras.Model(inputs, a**2), target=1).value_and_gradient(
            {"a": POINTS[:, :3], "b": POINTS[:, :4]}
        )
    np.testing.assert_allclose(both({"b": POINTS[:, :4], "a": POINTS[:, :3]})[1]["a"], expected, rtol=1e-6)
    np.testing.assert_allclose(both({"a": POINTS[:, :3]}, b=POINTS[:, :4])[1]["a"], expected, rtol=1e-6)
    np.testing.assert_allclose(both(POINTS[:, :3], b=POINTS[:, :4])[1], expected, rtol=1e-6)


def test_a_batch_of_estimates_has_a_target_for_each_row():
    smooth, oracle = mk.Pathwise(mk.Gaussian(0.3), block=16), TensorFlowOracle(nets.mlp())
    rows = smooth.estimate_batch(
        oracle, POINTS, held={"target": [3, 0, 1, 1]}, budget=mk.Evaluations(32), rng=1
    )
    alone = smooth.estimate(oracle, POINTS[2], held={"target": 1}, budget=mk.Evaluations(32), rng=(1, 2))
    np.testing.assert_array_equal(rows[2].gradient, alone.gradient)


def parts(x):
    return {"sum": tf.reduce_sum(x, 1), "parts": (x[:, :2], x[:, 2:] ** 2)}


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        ("sum", None, lambda x: np.ones_like(x)),
        (lambda outputs: outputs["parts"][1], 0, lambda x: 2 * x * np.eye(6)[2]),
        (None, lambda outputs: outputs["parts"][1][:, 3], lambda x: 2 * x * np.eye(6)[5]),
    ],
)
def test_outputs_of_many_forms(output, target, expected):
    oracle = TensorFlowOracle(parts, output=output, target=target)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], expected(POINTS), rtol=1e-6)


def test_an_element_of_an_output_of_higher_rank():
    outer = TensorFlowOracle(lambda x: x[:, :, None] * x[:, None, :], target=(1, 4))
    values, gradients = outer.value_and_gradient(POINTS)
    np.testing.assert_allclose(values, POINTS[:, 1] * POINTS[:, 4], rtol=1e-6)
    np.testing.assert_allclose(gradients[:, 1], POINTS[:, 4], rtol=1e-6)
    by_row = outer.value(POINTS, target=np.array([[1, 4], [0, 0], [1, 4], [5, 2]]))
    np.testing.assert_allclose(by_row[[1, 3]], [POINTS[1, 0] ** 2, POINTS[3, 5] * POINTS[3, 2]], rtol=1e-6)


def test_top_is_fixed_on_the_clean_input():
    oracle = TensorFlowOracle(nets.mlp(), target="top")
    with pytest.raises(ValueError, match=r"call oracle.anchored\(inputs\)"):
        oracle.value_and_gradient(POINTS)
    outputs = oracle.predict(POINTS)
    for k in range(4):
        anchored = oracle.anchored(POINTS[k])
        np.testing.assert_array_equal(anchored.value(POINTS), outputs[:, outputs[k].argmax()])
    assert oracle.anchored(POINTS[0], target=np.array(1)) is oracle
    with pytest.raises(FloatingPointError, match="NaN on the clean input"):
        TensorFlowOracle(lambda x: x * float("nan"), target="top").anchored(POINTS[0])


def test_a_function_of_tensorflow_with_control_flow():
    def model(x, mask):
        total = x * 0.0
        for k in tf.range(3):
            total += x**2 if k > 1 else x
        return total * mask

    for function in (model, tf.function(model)):
        oracle = TensorFlowOracle(function, target=1)
        got = oracle.value_and_gradient(POINTS, mask=np.ones((4, 6)))[1]
        np.testing.assert_allclose(got, (2 + 2 * POINTS) * np.eye(6)[1], rtol=1e-6)


def test_embeddings_are_smoothed_behind_their_layer():
    """What a user of a token model does: the oracle is of the layers behind the embedding."""
    tokens = keras.Input((7,), dtype="int32", name="ids")
    table = keras.layers.Embedding(11, 4)
    body = keras.Sequential(
        [keras.Input((7, 4)), keras.layers.LSTM(4), keras.layers.Dense(3)],
    )
    model = keras.Model(tokens, body(table(tokens)))
    ids = np.arange(7)[None] % 11
    oracle = TensorFlowOracle(body, target="top")
    points = table(ids).numpy()[0]
    estimate = mk.Pathwise(mk.Gaussian(0.1)).estimate(oracle, points, budget=mk.Evaluations(64), rng=0)
    assert estimate.gradient.shape == (7, 4)
    np.testing.assert_allclose(oracle.predict(points[None]), model(ids).numpy(), rtol=1e-5)


def test_dtypes():
    exact = TensorFlowOracle(nets.mlp(), target=1).value_and_gradient(POINTS)[1]
    for dtype, given in (("float16", np.float16), ("bfloat16", np.float32)):
        values, gradients = TensorFlowOracle(nets.mlp(dtype), target=1).value_and_gradient(POINTS)
        assert values.dtype == gradients.dtype == given
        np.testing.assert_allclose(gradients, exact, rtol=0.1, atol=0.05)
        weights = TensorFlowOracle(nets.mlp(dtype), target=1).weights
        assert all(np.issubdtype(w.dtype, np.floating) for w in weights.values())
    values, gradients = TensorFlowOracle(nets.mlp("mixed_float16"), target=1).value_and_gradient(POINTS)
    assert (values.dtype, gradients.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(gradients, exact, rtol=0.05, atol=0.01)
    swapped = TensorFlowOracle(nets.mlp(), target=1).value_and_gradient(POINTS.astype(">f8"))[1]
    assert swapped.dtype == np.float32
    np.testing.assert_allclose(swapped, exact, rtol=1e-5, atol=1e-7)
    assert TensorFlowOracle(tf.sin, target=0, dtype="float64").value(POINTS).dtype == np.float64


def test_weights_are_smoothed():
    """NoiseGrad on a linear model: the mean over the weights of w is w, and the error bar is that of w."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    kernel = np.arange(1, 7, dtype=np.float32)[:, None]
    model.set_weights([kernel])
    smooth = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2)))
    estimate = smooth.estimate(TensorFlowOracle(model), POINTS[0], budget=mk.Evaluations(256), rng=0)
    np.testing.assert_allclose(estimate.gradient, kernel[:, 0], rtol=1e-4)  # exact under recentred draws
    single = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2)), weights_sampler=mk.Independent())
    estimate = single.estimate(TensorFlowOracle(model), POINTS[0], budget=mk.Evaluations(256), rng=0)
    np.testing.assert_allclose(
        estimate.standard_error, 0.2 * kernel[:, 0] / np.sqrt(estimate.n_groups), rtol=0.3
    )


def test_compiled_by_xla():
    expected = TensorFlowOracle(nets.mlp(), target=1).value_and_gradient(POINTS)
    got = TensorFlowOracle(nets.mlp(), target=1, jit_compile=True).value_and_gradient(POINTS)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-7)


def test_pickled_oracles_give_the_same():
    oracle = TensorFlowOracle(nets.normalised(), target=1)
    values, gradients = oracle.value_and_gradient(IMAGES)
    again = pickle.loads(pickle.dumps(oracle)).value_and_gradient(IMAGES)
    np.testing.assert_array_equal(again[0], values)
    np.testing.assert_array_equal(again[1], gradients)


@pytest.mark.full
def test_another_process():
    oracle = TensorFlowOracle(nets.mlp(), target=3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        _, gradients = pool.submit(oracle.value_and_gradient, POINTS).result()
    np.testing.assert_allclose(gradients, oracle.value_and_gradient(POINTS)[1], rtol=1e-6)


def test_description():
    told = TensorFlowOracle(nets.mlp(), target=(3,)).describe()
    assert told["model"] == "mlp"
    assert told["target"] == [3]
    assert len(told["weights_sha256"]) == 64
    assert told["weights_sha256"] != TensorFlowOracle(nets.mlp("float64")).describe()["weights_sha256"]
    assert TensorFlowOracle(tf.sin).describe()["weights_sha256"] is None
    assert repr(TensorFlowOracle(nets.mlp(), target=(3,))) == "TensorFlowOracle(mlp, target=(3,))"
