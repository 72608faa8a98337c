from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax import numpy as jnp  # noqa: E402
from mollikit_jax import JaxOracle  # noqa: E402

import mollikit as mk  # noqa: E402
from tests.jax import nets  # noqa: E402
from tests.onnx import models  # noqa: E402

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


def test_values_and_gradients_by_hand():
    target = np.array([0, 4, 2, 2])
    expected, by_hand = models.mlp_by_hand(POINTS.astype(np.float64), target)
    for options in ({}, {"rowwise": True}, {"jit": False}):
        oracle = JaxOracle(nets.mlp, nets.mlp_params(), **options)
        values, gradients = oracle.value_and_gradient(POINTS, target=target)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradients, by_hand, rtol=1e-5, atol=1e-6)


def test_neither_targets_nor_weights_retrace():
    traces = []

    def model(params, x):
        traces.append(x.shape)
        return jnp.tanh(params["scale"] * x)

    oracle = JaxOracle(model, {"scale": np.float32([2])})
    oracle.value_and_gradient(POINTS, target=np.arange(4))
    once = len(traces)
    for k in range(3):
        other = oracle.reweighted({"scale": np.float32([k])})
        other.value_and_gradient(POINTS, target=np.full(4, k))
    assert len(traces) == once
    assert set(traces) == {(4, 6)}


def test_modules_bring_their_parameters_along():
    module, variables = nets.linen_net()
    linen, nnx_net, equinox = (
        JaxOracle(module.apply, variables, target=1),
        JaxOracle(nets.nnx_net(), target=1),
        JaxOracle(nets.equinox_net(), target=1, rowwise=True),
    )
    assert set(linen.weights) == {
        f"params/{layer}/{name}"
        for layer, names in {
            "BatchNorm_0": ("bias", "scale"),
            "Dense_0": ("bias", "kernel"),
            "Dense_1": ("bias", "kernel"),
        }.items()
        for name in names
    }, "running statistics are not learnt"
    assert not any("mean" in name or "var" in name or "rngs" in name for name in nnx_net.weights)
    assert {"norm/scale/value", "first/kernel/value"} <= set(nnx_net.weights)
    assert set(equinox.weights) == {f"layers/{k}/{name}" for k in (0, 1) for name in ("weight", "bias")}
    direct = jax.grad(lambda x: nets.equinox_net()(x)[1])(POINTS[2])
    np.testing.assert_allclose(equinox.value_and_gradient(POINTS)[1][2], direct, rtol=1e-5, atol=1e-7)
    net = nets.nnx_net()
    direct = jax.grad(lambda x: net(x)[:, 1].sum())(POINTS)
    np.testing.assert_allclose(nnx_net.value_and_gradient(POINTS)[1], direct, rtol=1e-5, atol=1e-7)


def arrays(module):
    """Copies of a module's arrays; its random keys as their data."""
    leaves = jax.tree.leaves(module)
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [np.array(jax.random.key_data(x) if key else x) for x, key in zip(leaves, keys, strict=True)]


def test_modules_are_left_as_they_are():
    net = nets.nnx_net()
    before = arrays(net)
    oracle = JaxOracle(net, target=1)
    weights = oracle.weights
    models = [oracle.reweighted({n: (k + 1) * w for n, w in weights.items()}) for k in range(12)]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda o: o.value_and_gradient(POINTS)[1], models * 5))
    for was, now in zip(before, arrays(net), strict=True):
        np.testing.assert_array_equal(was, now)
    for k, result in enumerate(results):
        np.testing.assert_array_equal(result, models[k % 12].value_and_gradient(POINTS)[1])
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_weights_and_their_errors():
    oracle = JaxOracle(nets.mlp, nets.mlp_params(), target=1)
    zero = oracle.reweighted({"W2": np.zeros((16, 5))})
    assert np.all(zero.value_and_gradient(POINTS)[1] == 0)
    np.testing.assert_allclose(zero.value(POINTS), nets.mlp_params()["b2"][1], rtol=1e-6)
    assert zero.describe()["weights_sha256"] != oracle.describe()["weights_sha256"]
    with pytest.raises(ValueError, match=r"no weight 'W3': there are \['W1'"):
        oracle.reweighted({"W3": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'b1' has the shape \(16,\) and got \(3,\)"):
        oracle.reweighted({"b1": np.zeros(3)})


def test_noisegrad_of_a_linear_function_is_its_weights():
    kernel = np.arange(1, 7, dtype=np.float32)
    oracle = JaxOracle(lambda w, x: x @ w, kernel)
    estimate = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2))).estimate(
        oracle, POINTS[0], budget=mk.Evaluations(256), rng=0
    )
    np.testing.assert_allclose(estimate.gradient, kernel, rtol=1e-4)  # exact under recentred draws


def test_top_is_fixed_on_the_clean_input():
    oracle = JaxOracle(nets.mlp, nets.mlp_params(), target="top")
    with pytest.raises(ValueError, match=r"call oracle.anchored\(inputs\)"):
        oracle.value_and_gradient(POINTS)
    outputs = oracle.predict(POINTS)
    for k in range(4):
        np.testing.assert_allclose(
            oracle.anchored(POINTS[k]).value(POINTS), outputs[:, outputs[k].argmax()], rtol=1e-6
        )
    assert oracle.anchored(POINTS[0], target=np.array(1)) is oracle


def parts(x):
    return {"sum": x.sum(1), "parts": (x[:, :2], x[:, 2:] ** 2)}


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        ("sum", None, lambda x: np.ones_like(x)),
        (lambda outputs: outputs["parts"][1], 0, lambda x: 2 * x * np.eye(6)[2]),
        (None, lambda outputs: outputs["parts"][1][:, 3], lambda x: 2 * x * np.eye(6)[5]),
    ],
)
def test_outputs_of_many_forms(output, target, expected):
    oracle = JaxOracle(parts, output=output, target=target)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], expected(POINTS), rtol=1e-6)


def test_an_element_of_an_output_of_higher_rank():
    outer = JaxOracle(lambda x: x[:, :, None] * x[:, None, :], target=(1, 4))
    values, gradients = outer.value_and_gradient(POINTS)
    np.testing.assert_allclose(values, POINTS[:, 1] * POINTS[:, 4], rtol=1e-6)
    np.testing.assert_allclose(gradients[:, 1], POINTS[:, 4], rtol=1e-6)
    by_row = outer.value(POINTS, target=np.array([[1, 4], [0, 0], [1, 4], [5, 2]]))
    np.testing.assert_allclose(by_row[[1, 3]], [POINTS[1, 0] ** 2, POINTS[3, 5] * POINTS[3, 2]], rtol=1e-6)


def test_dtypes_and_jax_is_left_as_it_is_configured():
    exact = JaxOracle(nets.mlp, nets.mlp_params(), target=1).value_and_gradient(POINTS)[1]
    for dtype, given in ((jnp.float16, np.float16), (jnp.bfloat16, np.float32)):
        params = {name: jnp.asarray(w, dtype) for name, w in nets.mlp_params().items()}
        oracle = JaxOracle(nets.mlp, params, target=1)
        values, gradients = oracle.value_and_gradient(POINTS)
        assert values.dtype == gradients.dtype == given
        np.testing.assert_allclose(gradients, exact, rtol=0.1, atol=0.05)
        assert all(w.dtype == given for w in oracle.weights.values())
    values, gradients = JaxOracle(nets.mlp, nets.mlp_params(), target=1).value_and_gradient(
        POINTS.astype(">f8")
    )
    assert gradients.dtype == np.float32
    np.testing.assert_allclose(gradients, exact, rtol=1e-5, atol=1e-7)
    assert JaxOracle(jnp.sin, target=0).value(POINTS.astype(np.float64)).dtype == np.float32
    x = np.float64([[1.0, 2.0]])
    double = JaxOracle(jnp.sin, target=0, dtype=np.float64)
    np.testing.assert_allclose(double.value_and_gradient(x)[1], [[np.cos(1), 0]], rtol=1e-14, atol=0)
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == np.float32


def test_pickled_oracles_give_the_same():
    oracle = JaxOracle(nets.mlp, nets.mlp_params(), target=1)
    again = pickle.loads(pickle.dumps(oracle)).value_and_gradient(POINTS)
    np.testing.assert_array_equal(again[1], oracle.value_and_gradient(POINTS)[1])


def test_description():
    told = JaxOracle(nets.mlp, nets.mlp_params(), target=(3,)).describe()
    assert told["model"] == "mlp"
    assert told["target"] == [3]
    assert len(told["weights_sha256"]) == 64
    assert JaxOracle(jnp.sin).describe()["weights_sha256"] is None
    assert repr(JaxOracle(nets.mlp, nets.mlp_params(), target=(3,))) == "JaxOracle(mlp, target=(3,))"
