from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")

from mollikit_torch import CaptumOracle, TorchOracle  # noqa: E402
from scipy.stats import chi2  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.testing import OracleConformance  # noqa: E402
from tests.torch import nets  # noqa: E402
from tests.torch.test_law_5 import snapshot  # noqa: E402

# What Captum says of the hooks that it sets, here on copies.
pytestmark = pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning")

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(9).standard_normal((3, 2, 8, 8)).astype(np.float32)


class TestSaliency(OracleConformance):
    """The method that is the gradient itself, so that all of the suite holds."""

    def oracle(self):
        return CaptumOracle(attr.Saliency(nets.mlp()), abs=False)

    def value(self, oracle, points, held):
        return TorchOracle(nets.mlp()).reweighted(oracle.weights).value(points, **held)

    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 5, m)}


def captum(method, x, **arguments):
    return method.attribute(torch.tensor(x, requires_grad=True), **arguments).detach().numpy()


def relu_mlp():
    return nets.seeded(torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5)))


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (attr.IntegratedGradients, {"n_steps": 8}),
        (attr.InputXGradient, {}),
        (attr.DeepLift, {}),
        (attr.GuidedBackprop, {}),
        (attr.FeatureAblation, {}),
        (attr.Occlusion, {"sliding_window_shapes": (2,)}),
    ],
)
def test_any_method_gives_what_it_gives(make, arguments):
    model = relu_mlp()
    before = snapshot(model)
    oracle = CaptumOracle(make(model), target=2, **arguments)
    with ThreadPoolExecutor(6) as pool:
        results = [a for _, a in pool.map(oracle.value_and_gradient, [POINTS] * 12)]
    assert snapshot(model) == before
    expected = captum(make(model), POINTS, target=2, **arguments)
    assert np.abs(expected).max() > 0.1
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


def z_scores(estimate, other, other_error):
    spread = np.hypot(estimate.standard_error, other_error)
    return (estimate.gradient - other) / spread


def agree(z, false_alarm=1e-4):
    """Whether no coordinate is off, with this rate of false alarms over all of them."""
    return bool((np.square(z) <= chi2.isf(false_alarm / z.size, 1)).all())


@pytest.mark.parametrize("make", [attr.Saliency, attr.IntegratedGradients])
def test_the_limit_is_that_of_noise_tunnel(make):
    """Its smoothgrad is a plain mean, without a bias and without an error bar: that comes from runs of it."""
    model, arguments = nets.mlp(), {attr.Saliency: {"abs": False}}.get(make, {"n_steps": 8})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tunnel, x = attr.NoiseTunnel(make(model)), torch.tensor(POINTS[:1])
        runs = [
            tunnel.attribute(x, nt_samples=64, stdevs=0.5, target=1, **arguments)[0].detach().numpy()
            for _ in range(32)
        ]
    runs = np.array(runs)
    mean, error = runs.mean(0), runs.std(0, ddof=1) / np.sqrt(len(runs))
    oracle = CaptumOracle(make(model), target=1, **arguments)

    def estimated(width):
        smooth = mk.Pathwise(mk.Gaussian(width))
        return smooth.estimate(oracle, POINTS[0], budget=mk.Evaluations(4096), rng=0)

    assert agree(z_scores(estimated(0.5), mean, error))
    # A variance where a standard deviation was meant is seen.
    assert not agree(z_scores(estimated(0.25), mean, error))
    assert estimated(0.5).provenance["estimand"].count("Captum")


def zennit_smoothgrads(gradient, x, sigma, n, runs, rng):
    """Runs of Zennit's SmoothGrad (zennit/attribution.py, 0.5.1): the last of n samples has no noise."""
    noise = rng.standard_normal((runs, n, *x.shape)).astype(x.dtype) * sigma
    noise[:, -1] = 0
    return gradient((x + noise).reshape(-1, *x.shape)).reshape(noise.shape).mean(1)


def test_the_limit_of_zennit_with_its_bias_accounted_for():
    """By its formula, since its package needs torchvision: E = (1 - 1/n) S + grad(x) / n."""
    oracle, x, n, rng = TorchOracle(nets.mlp(), target=1), POINTS[0], 8, np.random.default_rng(0)

    def gradient(points):
        return oracle.value_and_gradient(points)[1].astype(np.float64)

    runs = zennit_smoothgrads(gradient, x, 0.5, n, 4096, rng)
    mean, error = runs.mean(0), runs.std(0, ddof=1) / np.sqrt(len(runs))
    unbiased = (mean - gradient(x[None])[0] / n) * n / (n - 1)
    estimate = mk.Pathwise(mk.Gaussian(0.5)).estimate(oracle, x, budget=mk.Evaluations(32768), rng=1)
    assert agree(z_scores(estimate, unbiased, error * n / (n - 1)))
    assert not agree(z_scores(estimate, mean, error))


def test_top_targets_by_row_and_several_inputs():
    model = nets.mlp()
    oracle = CaptumOracle(attr.Saliency(model), target="top", abs=False)
    with pytest.raises(ValueError, match=r"call oracle.anchored\(inputs\)"):
        oracle.value_and_gradient(POINTS)
    expected = TorchOracle(model, target="top").anchored(POINTS[0]).value_and_gradient(POINTS)[1]
    np.testing.assert_allclose(oracle.anchored(POINTS[0]).value_and_gradient(POINTS)[1], expected, rtol=1e-5)
    two = {"b": np.ones((4, 4), np.float32), "a": POINTS[:, :3]}
    mask = np.arange(16).reshape(4, 4) % 2
    got = CaptumOracle(attr.Saliency(nets.TwoInputs().eval()), target=1, abs=False)
    want = TorchOracle(nets.TwoInputs().eval(), target=1).value_and_gradient(two, mask=mask)[1]
    for name, attribution in got.value_and_gradient(two, mask=mask)[1].items():
        np.testing.assert_allclose(attribution, want[name], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="Captum passes arguments by place"):
        got.value_and_gradient({"b": two["b"]}, a=two["a"], mask=mask)
    with pytest.raises(ValueError, match="takes no argument 'c'"):
        got.value_and_gradient({**two, "c": two["b"]}, mask=mask)


def test_weights_can_be_smoothed_too():
    model = nets.mlp()
    oracle = CaptumOracle(attr.InputXGradient(model), target=1)
    assert set(oracle.weights) == set(dict(model.named_parameters()))
    smooth = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2)))
    estimate, other = (
        smooth.estimate(o, POINTS[0], budget=mk.Evaluations(64), rng=0)
        for o in (oracle, mk.InputTimesGradient(TorchOracle(model, target=1)))
    )
    np.testing.assert_allclose(estimate.gradient, other.gradient, rtol=1e-4, atol=1e-6)


def test_pickled_and_described():
    oracle = CaptumOracle(attr.IntegratedGradients(nets.mlp()), target=1, n_steps=4)
    again = pickle.loads(pickle.dumps(oracle)).value_and_gradient(POINTS)[1]
    np.testing.assert_array_equal(again, oracle.value_and_gradient(POINTS)[1])
    told = oracle.describe()
    assert (told["method"], told["arguments"], told["model"]) == (
        "IntegratedGradients",
        {"n_steps": 4},
        "Sequential",
    )
    assert repr(oracle) == "CaptumOracle(IntegratedGradients(n_steps=4), target=1)"


def test_a_plain_function():
    def model(x):
        return torch.stack([(x**2).sum(1), x.sum(1)], 1)

    oracle = CaptumOracle(attr.Saliency(model), target=0, abs=False)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], 2 * POINTS, rtol=1e-6)
    assert oracle.weights == {}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CaptumOracle(nets.mlp()), TypeError, "one of captum.attr, and got a Sequential"),
        (
            lambda: CaptumOracle(attr.NoiseTunnel(attr.Saliency(nets.mlp()))),
            ValueError,
            "give the method inside it",
        ),
        (lambda: CaptumOracle(attr.Saliency(nets.mlp()), target=len), TypeError, "targets are indices"),
        (lambda: CaptumOracle(attr.Saliency(nets.mlp()), target=-1), ValueError, "out of range"),
        (
            lambda: CaptumOracle(attr.DeepLift(nets.mlp()), return_convergence_delta=True),
            ValueError,
            "return_convergence_delta= is not for the oracle",
        ),
        (lambda: CaptumOracle(attr.Saliency(nets.Normalised())), ValueError, "in train mode"),
    ],
)
def test_bad_oracles(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_attributions_of_another_shape():
    model = nets.cnn()
    oracle = CaptumOracle(attr.LayerGradCam(model, model[0]), target=1)
    with pytest.raises(ValueError, match=r"shape \(3, 1, 8, 8\) to an input of \(3, 2, 8, 8\)"):
        oracle.value_and_gradient(IMAGES)
