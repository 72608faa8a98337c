"""Mean gates: exact where the gates do not correlate, biased where they do, refused where there are none."""

import copy

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import MeanGates, OnnxOracle
from mollikit_onnx.mean_gates import NoMeanGateError
from mollikit_onnx.mean_gates.compiled import _COMPILED, _KEPT, compiled
from onnx import ModelProto, numpy_helper
from scipy.special import ndtr

import mollikit as mk

RNG = np.random.default_rng(7)
W, V, B = RNG.standard_normal((6, 5)) / 2, RNG.standard_normal((5, 1)), RNG.standard_normal(5)
KERNEL = RNG.standard_normal((4, 2, 3, 3)) / 3
X = RNG.standard_normal(6)
IMAGE = RNG.standard_normal((2, 8, 8))
SCALE = 0.5
SMOOTH = mk.Gaussian(SCALE)


def model(body: str, dtype: type = np.float32, **weights: np.ndarray) -> ModelProto:
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    text = f'<ir_version: 8, opset_import: ["" : 20]>\n{body}'
    proto = onnx.parser.parse_model(text.replace("real", kind))
    arrays = {"W": W, "V": V, "b": B, "K": KERNEL, **weights}
    proto.graph.initializer.extend(
        numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(dtype), name)
        for name, array in arrays.items()
        if name in body
    )
    return proto


def one_layer(act: str, **weights: np.ndarray) -> ModelProto:
    body = f"g (real[n,6] x) => (real[n,1] y) {{ z = Gemm(x, W, b) {act} y = MatMul(a, V) }}"
    return model(body, **weights)


def surrogates(
    proto: ModelProto, x: np.ndarray, forwards: int, seeds: range, **options: object
) -> list[np.ndarray]:
    gates, oracle = MeanGates(SMOOTH, forwards, **options), OnnxOracle(proto)
    return [gates.surrogate(oracle, x.astype(np.float32), rng=rng).gradient for rng in seeds]


def surrogate(proto: ModelProto, x: np.ndarray, forwards: int, rng: int = 0, **options: object) -> np.ndarray:
    return surrogates(proto, x, forwards, range(rng, rng + 1), **options)[0]


def error(map_: np.ndarray, reference: mk.Estimate) -> float:
    return float(np.linalg.norm(map_ - reference.gradient) / np.linalg.norm(reference.gradient))


def truth(proto: ModelProto, x: np.ndarray, n: int = 1 << 16) -> mk.Estimate:
    x = x.astype(np.float32)
    return mk.Pathwise(SMOOTH).estimate(OnnxOracle(proto), x, budget=mk.Evaluations(n), rng=99)


def deviation(maps: list[np.ndarray], reference: mk.Estimate) -> float:
    """Squared distance of the mean of maps from a reference, over what their spread lets expect: about 1."""
    mean, own = np.mean(maps, axis=0), np.var(maps, axis=0, ddof=1).sum() / len(maps)
    expected = own + np.square(reference.standard_error).sum()
    return float(np.square(mean - reference.gradient).sum() / expected)


@pytest.mark.parametrize(
    "layers",
    [
        "z = Gemm(x, W, b) y = MatMul(z, V)",
        "t = Transpose<perm = [1, 0]>(x) u = Transpose<perm = [1, 0]>(t) z = MatMul(u, W) y = MatMul(z, V)",
    ],
)
def test_a_linear_net_is_exact(layers):
    proto = model(f"g (real[n,6] x) => (real[n,1] y) {{ {layers} }}")
    np.testing.assert_allclose(surrogate(proto, X, 8), (W @ V)[:, 0], rtol=1e-5)


def test_linear_images_are_exact():
    body = """g (real[n,2,8,8] x) => (real[n,1] y) {
        z = Conv<pads = [1,1,1,1]>(x, K) p = AveragePool<kernel_shape = [2,2], strides = [2,2]>(z)
        q = GlobalAveragePool(p) f = Flatten(q) y = MatMul(f, D) }"""
    proto = model(body, D=np.ones((4, 1)))
    _, exact = OnnxOracle(proto).value_and_gradient(IMAGE[None].astype(np.float32))
    np.testing.assert_allclose(surrogate(proto, IMAGE, 4), exact[0], rtol=1e-4, atol=1e-7)


def test_products_of_two_linear_tensors_are_exact_under_recentred_points():
    body = """g (real[n,6] x) => (real[n,1] y) {
        z = Gemm(x, W, b) u = MatMul(x, U) p = Mul(z, u) y = MatMul(p, V) }"""
    U = W[::-1].copy()
    expected = (W * (X @ U) + U * (X @ W + B)) @ V
    got = surrogate(model(body, U=U), X, 16, sampler=mk.Recentred(8))
    np.testing.assert_allclose(got, expected[:, 0], rtol=1e-4, atol=1e-5)


def test_one_layer_of_relu_is_the_closed_form():
    # E[1(z > 0)] = Phi(mean / deviation), and the gates of one layer multiply no others.
    exact = W @ (V[:, 0] * ndtr((X @ W + B) / (SCALE * np.linalg.norm(W, axis=0))))
    maps = surrogates(one_layer("a = Relu(z)"), X, 512, range(24))
    # The gates are consistent, with a bias of order 1 / n that is far below the spread of a map.
    spread = np.std(maps, axis=0, ddof=1) / np.sqrt(24)
    assert np.abs(np.mean(maps, axis=0) - exact).max() < 4 * spread.max() + 1e-3
    assert np.abs(np.mean(maps, axis=0) - exact).max() < 0.01 * np.abs(exact).max()


ONE = {
    "Relu": "a = Relu(z)",
    "Clip": "l = Constant<value = float {0.0}>() h = Constant<value = float {1.0}>() a = Clip(z, l, h)",
    "LeakyRelu": "a = LeakyRelu<alpha = 0.1>(z)",
    "Elu": "a = Elu(z)",
    "Sigmoid": "a = Sigmoid(z)",
    "Tanh": "a = Tanh(z)",
    "Softplus": "a = Softplus(z)",
    "HardSigmoid": "a = HardSigmoid(z)",
    "HardSwish": "a = HardSwish(z)",
    "Gelu": "a = Gelu(z)",
    "Mish": "a = Mish(z)",
    "Swish, written out": "s = Sigmoid(z) a = Mul(z, s)",
    "Max with a number": "c = Constant<value = float {0.0}>() a = Max(z, c)",
    "square": "a = Mul(z, z)",
    "Exp": "a = Exp(z)",
    "squeeze and excite": "m = ReduceMean<keepdims = 1>(z, one) s = Sigmoid(m) a = Mul(z, s)",
    "Max": "u = MatMul(x, U) a = Max(z, u)",
    "Div": "u = MatMul(x, U) e = Exp(u) a = Div(z, e)",
}


@pytest.mark.parametrize("name", ONE)
def test_one_layer_is_right_for_every_operator(name):
    proto = one_layer(ONE[name], U=W[::-1] / 4, one=np.array([1]))
    reference = truth(proto, X, 1 << 15)
    assert error(surrogate(proto, X, 2048), reference) < 0.04


@pytest.mark.parametrize(
    "pool",
    [
        "p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(z)",
        "p = MaxPool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(z)",
        "q = GlobalMaxPool(z) p = Mul(q, fours)",
        "q = ReduceMax(z, axes) p = Mul(q, fours)",
    ],
)
def test_pools_choose_as_often_as_they_did(pool):
    body = f"""g (real[n,2,8,8] x) => (real[n,1] y) {{
        z = Conv<pads = [1,1,1,1]>(x, K) {pool} f = Flatten(p) y = MatMul(f, D) }}"""
    weights = {"D": RNG.standard_normal((64, 1)), "fours": np.ones((4, 4, 4)), "axes": np.array([2, 3])}
    proto = model(body, **weights)
    reference = truth(proto, IMAGE, 1 << 15)
    assert error(surrogate(proto, IMAGE, 2048), reference) < 0.06


def test_softmax_at_its_mean_is_close_and_biased():
    proto = one_layer("a = Softmax(z)")
    reference = truth(proto, X)
    assert 0.002 < error(surrogate(proto, X, 2048), reference) < 0.2


def test_layer_normalization_is_written_out():
    proto = one_layer("a = LayerNormalization<axis = -1>(z, s, t)", s=np.ones(5), t=np.zeros(5))
    found = MeanGates(SMOOTH, 2048).surrogate(OnnxOracle(proto), X.astype(np.float32), rng=0)
    assert {"Sqrt", "Div"} <= set(found.provenance["made_linear"])
    reference = truth(proto, X)
    assert error(found.gradient, reference) < 0.25


def deep() -> ModelProto:
    """Four layers, whose gates correlate."""
    rng = np.random.default_rng(3)
    layers = {f"W{k}": rng.standard_normal((12 if k else 6, 12)) / 2 for k in range(4)}
    body = " ".join(
        f"z{k} = MatMul({'x' if k == 0 else f'a{k - 1}'}, W{k}) a{k} = Relu(z{k})" for k in range(4)
    )
    text = f"g (real[n,6] x) => (real[n,1] y) {{ {body} y = MatMul(a3, E) }}"
    return model(text, E=rng.standard_normal((12, 1)), **layers)


def test_gates_that_correlate_bias_and_one_layer_does_not():
    # Under no bias the deviation has mean 1 and a spread below 1: both bounds are 4 of them away, or more.
    unbiased = surrogates(one_layer("a = Softplus(z)"), X, 256, range(16))
    assert deviation(unbiased, truth(one_layer("a = Softplus(z)"), X, 1 << 17)) < 5
    biased = surrogates(deep(), X / 4, 1024, range(16))
    assert deviation(biased, truth(deep(), X / 4)) > 20


def test_the_prior_lessens_the_error_of_few_passes():
    body = """g (real[n,2,8,8] x) => (real[n,1] y) {
        z = Conv<pads = [1,1,1,1]>(x, K) a = Relu(z) c = Conv<pads = [1,1,1,1]>(a, K2) e = Relu(c)
        p = GlobalAveragePool(e) f = Flatten(p) y = MatMul(f, D) }"""
    rng = np.random.default_rng(1)
    proto = model(body, K2=rng.standard_normal((4, 4, 3, 3)) / 4, D=rng.standard_normal((4, 1)))
    reference = truth(proto, IMAGE / 8)
    drawn, bare = (
        np.mean([error(m, reference) ** 2 for m in surrogates(proto, IMAGE / 8, 8, range(24), prior=prior)])
        for prior in (64.0, 1e-6)
    )
    assert drawn < 0.6 * bare


def test_the_same_seed_gives_the_same_bits_and_another_others():
    first, again, other = (surrogate(deep(), X, 16, rng) for rng in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_a_batch_axis_fixed_at_one_gives_the_same():
    free = deep()
    fixed = copy.deepcopy(free)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.output[0].type.tensor_type.shape.dim[:]
    fixed.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
    fixed.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
    np.testing.assert_allclose(surrogate(fixed, X, 16), surrogate(free, X, 16), rtol=1e-3, atol=1e-5)


def test_held_inputs_and_targets_travel_along():
    body = """g (real[n,6] x, real[n,5] m) => (real[n,5] y) {
        z = Gemm(x, W, b) k = Mul(z, m) y = Relu(k) }"""
    oracle, x = OnnxOracle(model(body), wrt=["x"]), X.astype(np.float32)
    mask = np.array([1, 0, 2, 0, 1], np.float32)
    probability = ndtr((X @ W + B) / (SCALE * np.linalg.norm(W, axis=0)))
    for target in range(5):
        held = {"m": mask, "target": np.array(target)}
        got = MeanGates(SMOOTH, 512).surrogate(oracle, x, held=held, rng=0).gradient
        expected = W[:, target] * mask[target] * probability[target]
        np.testing.assert_allclose(got, expected, atol=0.05 * mask[target] * np.abs(W).max() + 1e-7)


def test_the_top_class_is_chosen_on_the_clean_input():
    proto = model("g (real[n,6] x) => (real[n,5] y) { z = Gemm(x, W, b) y = Relu(z) }")
    top = int(np.argmax(X @ W + B))
    x = X.astype(np.float32)
    by_name = MeanGates(SMOOTH, 16).surrogate(OnnxOracle(proto, target="top"), x, rng=0)
    by_number = MeanGates(SMOOTH, 16).surrogate(OnnxOracle(proto, target=top), x, rng=0)
    np.testing.assert_array_equal(by_name.gradient, by_number.gradient)


def test_the_model_is_left_as_it_is():
    proto = deep()
    before, oracle = proto.SerializeToString(), OnnxOracle(proto)
    x = X.astype(np.float32)
    gradient = oracle.value_and_gradient(x[None])[1]
    MeanGates(SMOOTH, 8).surrogate(oracle, x, rng=0)
    assert proto.SerializeToString() == before
    np.testing.assert_array_equal(oracle.value_and_gradient(x[None])[1], gradient)
    np.testing.assert_array_equal(x, X.astype(np.float32))


def test_linear_models_of_few_shapes_are_kept():
    oracle = OnnxOracle(model("g (real[n,k,6] x) => (real[n,k,5] y) { z = MatMul(x, W) y = Tanh(z) }"))
    gates = MeanGates(SMOOTH, 16)

    def drawn(rows: int) -> np.ndarray:
        x = np.tile(X, (rows, 1)).astype(np.float32)
        return gates.surrogate(oracle.anchored(x), x, rng=rows, held={"target": np.array([0, 1])}).gradient

    first = drawn(1)
    shapes = {"x": (1, 1, 6)}
    in_use = compiled(oracle._sessions, shapes, gates.prior, (1, 1, 5))
    moments = in_use.moments({"x": np.zeros((8, 1, 6), np.float32)}, 8)
    for rows in (2, 3, 4, 5, 6):
        drawn(rows)
    assert len(_COMPILED[oracle._sessions]) == _KEPT
    assert compiled(oracle._sessions, {"x": (1, 6, 6)}, gates.prior, (1, 6, 5)) in list(
        _COMPILED[oracle._sessions].values()
    )
    assert in_use not in list(_COMPILED[oracle._sessions].values())
    (gradient,) = in_use.gradients(moments, {"x": np.zeros((1, 1, 6), np.float32)}, (0, 0, 0))
    np.testing.assert_allclose(np.ravel(gradient), W[:, 0], rtol=1e-5)
    assert np.array_equal(drawn(1), first)


def test_the_risk_is_audited():
    reference = truth(deep(), X)
    oracle, x = OnnxOracle(deep()), X.astype(np.float32)
    estimates = [
        MeanGates(SMOOTH, 64).estimate(oracle, x, audit=mk.Evaluations(256), rng=rng) for rng in range(12)
    ]
    real = np.mean([np.square(e.gradient - reference.gradient).sum() for e in estimates])
    stated = [e.risk for e in estimates]
    assert abs(np.mean(stated) - real) < 4 * np.std(stated, ddof=1) / np.sqrt(12) + 0.02 * real
    assert estimates[0].n_evaluations == 256 + 64 / 3 + 1
    assert "mean gates" in estimates[0].biased


REFUSED = {
    "TopK": "t, i = TopK(z, two) y = MatMul(t, V2)",
    "LogSoftmax": "a = LogSoftmax(z) y = MatMul(a, V)",
    "ReduceProd": "y = ReduceProd(z, one)",
}


@pytest.mark.parametrize("op_type", REFUSED)
def test_other_operators_are_refused_by_name(op_type):
    body = f"g (real[n,6] x) => (real[n,1] y) {{ z = Gemm(x, W, b) {REFUSED[op_type]} }}"
    oracle = OnnxOracle(model(body, V2=V[:2], two=np.array([2]), one=np.array([1])))
    with pytest.raises(NoMeanGateError, match=rf"operator {op_type} .* use mollikit.Pathwise") as caught:
        MeanGates(SMOOTH, 8).surrogate(oracle, X.astype(np.float32), rng=0)
    assert caught.value.op_type == op_type


class Bowl:
    def value_and_gradient(self, points):
        return None, points


def test_bad_input_is_refused_before_any_work():
    oracle = OnnxOracle(deep())
    for bad, match in (
        (lambda: MeanGates(SMOOTH, 3), "at least 4 passes"),
        (lambda: MeanGates(SMOOTH, prior=0.0), "prior=0.0"),
        (lambda: MeanGates(mk.Cauchy(0.1)), "no variance"),
        (lambda: MeanGates(SMOOTH, 4, mk.Recentred(8)).surrogate(oracle, X, rng=0), "no group of 8"),
        (lambda: MeanGates(SMOOTH).surrogate(oracle, X[:3], rng=0), "takes a batch of shape"),
        (lambda: MeanGates(SMOOTH).surrogate(oracle, X * np.nan, rng=0), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
    with pytest.raises(TypeError, match="give an OnnxOracle"):
        MeanGates(SMOOTH).surrogate(Bowl(), X, rng=0)
    with pytest.raises(TypeError, match="audit="):
        MeanGates(SMOOTH).estimate(oracle, X, audit=mk.Seconds(1), rng=0)


def test_little_noise_on_a_large_activation_leaves_the_slope_its_digits():
    """The slope of z -> softplus(z) at 40 is one; in float32 a leaf that is not centred would drown it."""
    body = """g (real[n,6] x) => (real[n,1] y) {
        z = Gemm(x, W, c) a = Softplus(z) y = MatMul(a, V) }"""
    oracle = OnnxOracle(model(body, c=np.full(5, 40.0)))
    found = MeanGates(mk.Gaussian(1e-2), 16, prior=1e-3).surrogate(oracle, X.astype(np.float32), rng=0)
    np.testing.assert_allclose(found.gradient, (W @ V)[:, 0], rtol=2e-3, atol=2e-3)
