"""Smoothing of a PyTorch module's weights; what all oracles must do with them is in the conformance suite."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from mollikit_onnx import OnnxOracle  # noqa: E402
from mollikit_torch import TorchOracle  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.testing import assert_rows_close  # noqa: E402
from tests.core.test_determinism import bits  # noqa: E402
from tests.onnx import models  # noqa: E402
from tests.torch import nets  # noqa: E402
from tests.torch.test_law_5 import Restless, snapshot  # noqa: E402

LAW = mk.Gaussian(mk.OfMagnitude(0.2))
IMAGES = np.random.default_rng(9).standard_normal((4, 2, 8, 8)).astype(np.float32)


class Renamed:
    """An oracle whose weights go by other names, and some of them transposed."""

    def __init__(self, oracle, names, transposed=()):
        self.oracle, self.names, self.transposed = oracle, names, transposed

    def anchored(self, inputs, **held):
        return Renamed(self.oracle.anchored(inputs, **held), self.names, self.transposed)

    @property
    def weights(self):
        return {new: self._turned(new, self.oracle.weights[old]) for new, old in self.names.items()}

    def reweighted(self, weights):
        turned = {self.names[new]: self._turned(new, array) for new, array in weights.items()}
        return Renamed(self.oracle.reweighted(turned), self.names, self.transposed)

    def value_and_gradient(self, points, **held):
        return self.oracle.value_and_gradient(points, **held)

    def _turned(self, name, array):
        return array.T if name in self.transposed else array


MLP = {"0.weight": "W1", "0.bias": "b1", "2.weight": "W2", "2.bias": "b2"}
CNN = {"0.weight": "K1", "0.bias": "c1", "3.weight": "K2"}


@pytest.mark.parametrize("inputs", [None, mk.Gaussian(0.3)], ids=["weights", "both"])
@pytest.mark.parametrize(
    ("net", "model", "shape", "names", "transposed"),
    [
        (nets.mlp, models.mlp, (6,), MLP, ("0.weight", "2.weight")),
        (nets.cnn, models.cnn, (2, 8, 8), CNN, ()),
    ],
    ids=["mlp", "cnn"],
)
def test_the_smoothed_gradient_is_that_of_onnx_from_the_same_seed(
    inputs, net, model, shape, names, transposed
):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    smooth = mk.Pathwise(inputs, weights=LAW)
    theirs = Renamed(OnnxOracle(model(), target="top", values=True), names, transposed)
    ours = smooth.estimate(TorchOracle(net(), target="top"), x, budget=mk.Evaluations(64), rng=5)
    onnx = smooth.estimate(theirs, x, budget=mk.Evaluations(64), rng=5)
    other = smooth.estimate(theirs, x, budget=mk.Evaluations(64), rng=6)
    scale = np.abs(onnx.gradient).max()
    assert np.abs(ours.gradient - onnx.gradient).max() < 1e-5 * scale
    assert np.abs(other.gradient - onnx.gradient).max() > 1e-4 * scale
    np.testing.assert_allclose(ours.standard_error, onnx.standard_error, rtol=2e-3)
    np.testing.assert_allclose(ours.output.value, onnx.output.value, rtol=1e-5)
    assert ours.provenance["weights"]["coordinates"] == sum(w.size for w in theirs.weights.values())


@pytest.mark.parametrize("make", [nets.normalised, lambda: nets.seeded(Restless(), 1)])
def test_the_model_is_untouched_and_threads_do_not_change_the_bits(make):
    model = make()
    model.norm.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = snapshot(model)
    smooth = mk.Pathwise(mk.Gaussian(0.3), weights=LAW, block=16)
    oracle = TorchOracle(model, target=1)
    alone = smooth.estimate(oracle, IMAGES[0], budget=mk.Evaluations(320), rng=3)
    with ThreadPoolExecutor(6) as executor:
        run = smooth.estimate(oracle, IMAGES[0], budget=mk.Evaluations(320), rng=3, executor=executor)
    assert bits(run) == bits(alone)
    assert snapshot(model) == before


def test_a_failing_call_leaves_the_weights_where_they_were():
    class Failing(nets.Normalised):
        def forward(self, image):
            out = super().forward(image)
            if self.head.weight[0, 0] != OWN:
                raise KeyError("from inside the model")
            return out

    model = nets.seeded(Failing(), 1)
    OWN = model.head.weight[0, 0].item()
    before = snapshot(model)
    oracle = TorchOracle(model, target=1)
    expected = oracle.value_and_gradient(IMAGES)
    other = oracle.reweighted({"head.weight": oracle.weights["head.weight"] * 2})
    with pytest.raises(KeyError, match="from inside the model"):
        other.value_and_gradient(IMAGES)
    assert snapshot(model) == before
    assert np.array_equal(oracle.value_and_gradient(IMAGES)[1], expected[1])


def fresh(model, weights, x, target):
    """The gradient of the module itself with these weights loaded into it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights[name]))
    leaf = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(leaf + 0)[:, target].sum(), leaf)
    return gradient.numpy()


class Recurrent(nn.Module):
    """Keeps its weights in a list beside, as PyTorch's recurrent layers do."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(3, 5, batch_first=True, num_layers=2)
        self.head = nn.Linear(5, 2)
        self.again = [self.head.weight]

    def forward(self, x):
        return self.cells(x)[0][:, -1] @ self.again[0].T + self.head.bias


def tied():
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    parametrizations.weight_norm(nets.seeded(model)[0])
    model[4].weight = model[2].weight
    return model.eval()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (nets.normalised, (2, 8, 8)),
        (nets.viewing, (2, 8, 8)),
        (lambda: nets.seeded(Recurrent()), (4, 3)),
        (tied, (6,)),
    ],
    ids=["batch norm", "view", "recurrent", "tied and parametrised"],
)
def test_other_weights_are_those_of_a_module_that_has_them(make, shape):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    oracle = TorchOracle(make(), target=1)
    weights = {n: w + 0.1 * rng.standard_normal(w.shape).astype(w.dtype) for n, w in oracle.weights.items()}
    _, gradients = oracle.reweighted(weights).value_and_gradient(x)
    assert_rows_close(gradients, fresh(make(), weights, x, 1), np.float32, what="gradients")


def test_weights_are_the_parameters_and_not_the_buffers():
    model = nets.normalised()
    weights = TorchOracle(model, target=1).weights
    assert set(weights) == {name for name, _ in model.named_parameters()}
    assert not any("running" in name for name in weights)
    for name, parameter in model.named_parameters():
        assert np.shares_memory(weights[name], parameter.detach().numpy()), "no copy on the CPU"
        assert not weights[name].flags.writeable
    assert len(TorchOracle(tied(), target=1).weights) == 2 + 1 + 1 + 1 + 1, "a tied weight is one"


def test_what_is_trained_in_place_is_seen():
    model = nets.mlp()
    oracle = TorchOracle(model, target=1)
    other = oracle.reweighted({"0.bias": np.zeros(16, np.float32)})
    x = np.ones((2, 6), np.float32)
    before = other.value_and_gradient(x)[0]
    with torch.no_grad():
        model[2].bias += 3
    np.testing.assert_allclose(other.value_and_gradient(x)[0], before + 3, rtol=1e-6)
    np.testing.assert_array_equal(oracle.weights["2.bias"], model[2].bias.detach())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_callers_grad_mode_does_not_matter(mode):
    smooth, budget = mk.Pathwise(weights=LAW), mk.Evaluations(32)
    expected = smooth.estimate(TorchOracle(nets.normalised(), target=1), IMAGES[0], budget=budget, rng=0)
    with mode():
        oracle = TorchOracle(nets.normalised(), target=1)
        assert bits(smooth.estimate(oracle, IMAGES[0], budget=budget, rng=0)) == bits(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions(dtype):
    oracle = TorchOracle(nets.mlp(dtype), target=1)
    smooth = mk.Pathwise(weights=LAW)
    estimate = smooth.estimate(oracle, np.ones(6, np.float32), budget=mk.Evaluations(256), rng=0)
    single = smooth.estimate(
        TorchOracle(nets.mlp(), target=1), np.ones(6, np.float32), budget=mk.Evaluations(256), rng=0
    )
    # In double precision the normals are others.
    slack = 6 * single.standard_error if dtype == torch.float64 else 0.05 * np.abs(single.gradient).max()
    assert (np.abs(estimate.gradient - single.gradient) < slack).all()


def test_tasks_travel_to_other_processes():
    smooth = mk.Pathwise(weights=LAW, block=32)
    x = np.ones(6, np.float32)
    oracle = TorchOracle(nets.mlp(), target=1)
    sent = pickle.loads(pickle.dumps(oracle))
    budget = mk.Evaluations(64)
    expected = smooth.estimate(oracle, x, budget=budget, rng=0)
    assert bits(smooth.estimate(sent, x, budget=budget, rng=0)) == bits(expected)
    other = oracle.reweighted({"0.bias": np.zeros(16, np.float32)})
    points = np.ones((2, 6), np.float32)
    got = pickle.loads(pickle.dumps(other)).value_and_gradient(points)
    assert np.array_equal(got[1], other.value_and_gradient(points)[1])


def test_a_function_keeps_its_weights_to_itself():
    oracle = TorchOracle(lambda x: (x**3).sum(1))
    with pytest.raises(ValueError, match="shows no weights of floats"):
        mk.Pathwise(weights=LAW).estimate(oracle, np.ones(6, np.float32), budget=mk.Evaluations(8))
    with pytest.raises(ValueError, match=r"no weight '0.bias' to replace.*give the torch.nn.Module"):
        oracle.reweighted({"0.bias": np.zeros(16)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("by_caller", [False, True])
def test_compiled_modules_are_perturbed_as_they_are_uncompiled(by_caller, monkeypatch):
    # Traced by dynamo and run without generated code, which takes a C++ compiler and its time.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3), weights=LAW, block=16), mk.Evaluations(128)
    expected = smooth.estimate(TorchOracle(nets.normalised(), target=1), IMAGES[0], budget=budget, rng=3)
    plain = nets.normalised()
    model = torch.compile(plain) if by_caller else plain
    before, oracle = snapshot(plain), TorchOracle(model, target=1, compile=not by_caller)
    run = smooth.estimate(oracle, IMAGES[0], budget=budget, rng=3)
    np.testing.assert_allclose(run.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    with ThreadPoolExecutor(4) as executor:
        again = smooth.estimate(oracle, IMAGES[0], budget=budget, rng=3, executor=executor)
        assert bits(again) == bits(run)
        # Other weights are lent beside calls with the model's own.
        other = oracle.reweighted({"head.bias": np.full(4, 5, np.float32)})
        asked = [oracle, other] * 8
        values = list(executor.map(lambda one: one.value_and_gradient(IMAGES)[0], asked))
    own, lent = (np.ptp(values[k::2], axis=0).max() for k in (0, 1))
    assert own == lent == 0
    bias = oracle.weights["head.bias"][1]
    np.testing.assert_allclose(values[1] - values[0], 5 - bias, rtol=1e-5)
    assert other.describe()["weights_sha256"] != oracle.describe()["weights_sha256"]
    assert snapshot(plain) == before


def test_a_layers_output_is_smoothed_with_the_weights():
    ids, mask = np.arange(7) % 11, np.ones(7, bool)
    oracle = TorchOracle(nets.tokens(), layer="embeddings", output="logits", target=0)
    start = oracle.layer_output(ids=ids[None], mask=mask[None])[0]
    smooth = mk.Pathwise(mk.Gaussian(0.1), weights={"embeddings.*": None, "*": LAW})
    held = {"ids": ids, "mask": mask}
    estimate = smooth.estimate(oracle, start, held=held, budget=mk.Evaluations(64), rng=0)
    assert estimate.gradient.shape == (7, 4)
    assert estimate.provenance["weights"]["tensors"] == 4


def test_a_gradient_that_is_not_finite_under_other_weights():
    class Root(nets.Normalised):
        def forward(self, image):
            return torch.sqrt(self.head.weight[0, 0].clamp(max=0) * image.flatten(1)[:, :1])

    oracle = TorchOracle(nets.seeded(Root(), 1), target=None)
    other = oracle.reweighted({"head.weight": np.full((4, 96), -1, np.float32)})
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        other.value_and_gradient(np.abs(IMAGES))
