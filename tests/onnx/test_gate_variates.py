"""Gate variates: exact with one layer of gates, unbiased with several, refused where nothing is foretold."""

import re

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import GateVariates, ModelError, OnnxOracle
from onnx import ModelProto, numpy_helper
from scipy.special import ndtr

import mollikit as mk

RNG = np.random.default_rng(7)
SCALE = 0.5
X = RNG.standard_normal(6).astype(np.float32)
IMAGE = RNG.standard_normal((2, 8, 8)).astype(np.float32)
WEIGHTS = {
    "W": RNG.standard_normal((6, 12)) / 2,
    "b": RNG.standard_normal(12),
    "W2": RNG.standard_normal((12, 12)) / 3,
    "V": RNG.standard_normal((12, 2)),
    "K": RNG.standard_normal((4, 2, 3, 3)) / 3,
    "K2": RNG.standard_normal((3, 4, 3, 3)) / 5,
    "U": RNG.standard_normal((12, 1)),
}
DENSE = "g (float[n,6] x) => (float[n,2] y) { z = Gemm(x, W, b) a = Relu(z)"
ONE = f"{DENSE} y = MatMul(a, V) }}"
DEEP = f"{DENSE} z2 = MatMul(a, W2) s = Add(z2, a) a2 = Relu(s) y = MatMul(a2, V) }}"
POOLED = """g (float[n,2,8,8] x) => (float[n,1] y) {
    z = Conv<pads = [1, 1, 1, 1]>(x, K) a = Relu(z) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
    z2 = Conv<pads = [1, 1, 1, 1]>(p, K2) a2 = Relu(z2)
    p2 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a2) f = Flatten(p2) y = MatMul(f, U) }"""
CASES = {"deep": (DEEP, X, 0), "pooled": (POOLED, IMAGE, None)}


def model(text: str) -> ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 20]>\n{text}')
    words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    proto.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in WEIGHTS.items()
        if name in words
    )
    return proto


def variates(sampler: mk.Sampler | None = None, **options: object) -> GateVariates:
    return GateVariates(mk.Pathwise(mk.Gaussian(SCALE), sampler or mk.Recentred(8)), **options)


def test_with_one_layer_nothing_is_left():
    estimate = variates().estimate(OnnxOracle(model(ONE), target=1), X, budget=mk.Evaluations(512), rng=0)
    weights, bias = (WEIGHTS[name].astype(np.float32) for name in ("W", "b"))
    chance = ndtr((X @ weights + bias) / (SCALE * np.linalg.norm(weights, axis=0)))
    expected = weights @ (chance * WEIGHTS["V"][:, 1])
    # Forms and model round a little differently, and a gate at its very edge may differ.
    np.testing.assert_allclose(estimate.gradient, expected, rtol=1e-5, atol=1e-6)
    assert estimate.standard_error.max() < 1e-6
    assert estimate.n_evaluations <= 512


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_unbiased_covers_and_gains(case, layers):
    text, x, target = CASES[case]
    oracle = OnnxOracle(model(text), target=target)
    plain = mk.Pathwise(mk.Gaussian(SCALE), mk.Independent())
    truth = plain.estimate(oracle, x, budget=mk.Evaluations(1 << 16), rng=99)
    scheme = variates(layers=layers, forwards=16)
    found = [scheme.estimate(oracle, x, budget=mk.Evaluations(768), rng=(1, k)) for k in range(40)]
    gradients = np.array([estimate.gradient for estimate in found])
    expected = gradients.var(axis=0, ddof=1).sum() / len(found) + np.square(truth.standard_error).sum()
    deviation = np.square(gradients.mean(axis=0) - truth.gradient).sum() / expected
    # About 1, of few directions: a false alarm in less than 1e-3.
    assert deviation < 5
    stated = np.mean([np.square(estimate.standard_error).sum() for estimate in found])
    assert stated == pytest.approx(gradients.var(axis=0, ddof=1).sum(), rel=0.35)
    # Against the mean of the runs, whose own error the intervals do not know; of the coordinates that err
    # more: where a gate flips in one point of hundreds no groups tell a spread, with forms or without.
    low, high = np.array([estimate.interval(0.95) for estimate in found]).swapaxes(0, 1)
    centre, spread = gradients.mean(axis=0), gradients.var(axis=0)
    covered = ((low <= centre) & (high >= centre))[:, spread >= np.median(spread)]
    assert 0.91 < covered.mean() < 0.985
    independent = np.square(truth.standard_error).sum() * truth.n_evaluations / 768
    assert independent / stated > (1.1 if layers == 1 else 1.2)


def test_a_wrong_mean_is_seen(monkeypatch):
    oracle = OnnxOracle(model(DEEP), target=0)
    exact = mk.Ridges.smoothed
    right = variates(forwards=16).estimate(oracle, X, budget=mk.Evaluations(2048), rng=0)
    monkeypatch.setattr(
        mk.Ridges, "smoothed", lambda self, widths, **given: exact(self, 1.3 * widths, **given)
    )
    wrong = variates(forwards=16).estimate(oracle, X, budget=mk.Evaluations(2048), rng=0)
    assert np.abs((wrong.gradient - right.gradient) / right.standard_error).max() > 5


def test_seeds_budgets_and_what_is_told():
    oracle = OnnxOracle(model(DEEP))
    held, budget = {"target": np.int64(1)}, mk.Evaluations(300)
    first, again = (variates().estimate(oracle, X, held=held, budget=budget, rng=4) for _ in range(2))
    np.testing.assert_array_equal(first.gradient, again.gradient)
    fixed = variates().estimate(OnnxOracle(model(DEEP), target=1), X, budget=budget, rng=4)
    np.testing.assert_array_equal(first.gradient, fixed.gradient)
    assert 250 < first.n_evaluations <= 300
    assert first.provenance["layers"] == ["z", "s"]
    # 64 passes forward, 6 of the linear model as far as its last form, one back.
    assert 22 < first.provenance["before"] < 25


def test_coordinates_that_stand_still_have_no_forms():
    widths = np.array([0.5, 0, 0.5, 0.5, 0, 0.5])
    scheme = GateVariates(mk.Pathwise(mk.Gaussian(widths)))
    oracle = OnnxOracle(model(ONE), target=1)
    estimate = scheme.estimate(oracle, X, budget=mk.Evaluations(512), rng=0)
    weights = WEIGHTS["W"].astype(np.float32)
    deviation = np.linalg.norm(weights * widths[:, None], axis=0)
    expected = weights @ (
        ndtr((X @ weights + WEIGHTS["b"].astype(np.float32)) / deviation) * WEIGHTS["V"][:, 1]
    )
    np.testing.assert_allclose(estimate.gradient[widths > 0], expected[widths > 0], rtol=1e-5, atol=1e-6)
    still = np.abs(estimate.gradient - expected)[widths == 0]
    assert (still < 5 * estimate.standard_error[widths == 0]).all()


def test_what_does_not_fit_is_refused():
    oracle, budget = OnnxOracle(model(DEEP), target=0), mk.Evaluations(512)
    with pytest.raises(TypeError, match="Gaussian alone"):
        GateVariates(mk.Pathwise(mk.Logistic(0.5))).estimate(oracle, X, budget=budget)
    with pytest.raises(TypeError, match=r"GateVariates works inside .* OnnxOracle"):
        variates().estimate(mk.FunctionOracle(value=np.sum), X, budget=budget)
    with pytest.raises(TypeError, match="Evaluations"):
        variates().estimate(oracle, X, budget=mk.Seconds(1))
    with pytest.raises(ValueError, match="give fewer layers"):
        variates(layers=2).estimate(oracle, X, budget=mk.Evaluations(32))
    with pytest.raises(ValueError, match=r"GateVariates: Evaluations.* an error bar takes") as refused:
        variates(layers=1).estimate(oracle, X, budget=mk.Evaluations(64), rng=0)
    enough = int(re.search(r"at least Evaluations\((\d+)\)", str(refused.value))[1])
    assert (
        variates(layers=1).estimate(oracle, X, budget=mk.Evaluations(enough), rng=0).n_evaluations <= enough
    )
    with pytest.raises(TypeError, match=r"GateVariates: .* is not a Pathwise"):
        GateVariates(mk.Gaussian(0.5))
    with pytest.raises(ValueError, match="layers=0"):
        variates(layers=0)
    with pytest.raises(ValueError, match="4 passes"):
        variates(forwards=2)
    smooth = model("g (float[n,6] x) => (float[n,2] y) { z = Gemm(x, W, b) a = Tanh(z) y = MatMul(a, V) }")
    with pytest.raises(ModelError, match="gates of Relu"):
        variates().estimate(OnnxOracle(smooth, target=0), X, budget=budget)
