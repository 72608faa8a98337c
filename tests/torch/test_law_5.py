"""The caller's model, its framework's random numbers and the caller's modes are never touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mollikit_torch import TorchOracle  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

from tests.torch import nets  # noqa: E402

IMAGES = np.random.default_rng(9).standard_normal((4, 2, 8, 8)).astype(np.float32)


def snapshot(model):
    """Everything of a module that a careless oracle might change, and torch's own generator."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "bytes": {n: t.detach().cpu().numpy().tobytes() for n, t in tensors},
        "objects": {n: id(t) for n, t in tensors},
        "versions": {n: t._version for n, t in tensors},
        "dtypes": {n: t.dtype for n, t in tensors},
        "requires_grad": {n: t.requires_grad for n, t in tensors},
        "grad": {n: None if t.grad is None else t.grad.numpy().tobytes() for n, t in tensors},
        "modes": {n: m.training for n, m in model.named_modules()},
        "attributes": {n: sorted(vars(m)) for n, m in model.named_modules()},
        "hooks": {
            n: [len(v) for k, v in sorted(vars(m).items()) if "hooks" in k] for n, m in model.named_modules()
        },
        "rng": torch.get_rng_state().numpy().tobytes(),
    }


class Restless(nets.Normalised):
    """Writes on itself in every forward pass, as stateful models do; its answer depends on that state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("total", torch.zeros(1))

    def forward(self, image):
        self.seen = image.detach()
        self.calls += 1
        self.total = self.total + self.calls
        return super().forward(self.seen * 0 + image) * self.total


@pytest.mark.parametrize("make", [nets.normalised, lambda: nets.seeded(Restless(), 1)])
def test_sixty_calls_from_twelve_threads(make):
    model = make()
    model.norm.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    heard = []
    model.conv.register_forward_hook(lambda *_: heard.append(1))
    before = snapshot(model)
    oracle = TorchOracle(model, target=1)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((3, 2, 8, 8)).astype(np.float32) for _ in range(60)]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(oracle.value_and_gradient, batches))
    assert snapshot(model) == before
    assert len(heard) == 60, "the caller's hook belongs to the model and is part of it"
    model.requires_grad_(True)
    state = {name: tensor.clone() for name, tensor in model.named_buffers()}
    for batch, (values, gradients) in zip(batches, results, strict=True):
        model.load_state_dict(state, strict=False)
        leaf = torch.tensor(batch, requires_grad=True)
        out = model(leaf + 0)[:, 1]
        (expected,) = torch.autograd.grad(out.sum(), leaf)
        np.testing.assert_allclose(values, out.detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-6)


class Raising(nets.Normalised):
    def forward(self, image):
        self.conv.weight  # noqa: B018 - as far as a real one would come
        raise KeyError("from inside the model")


def test_an_error_inside_the_model_carries_through():
    model = nets.seeded(Raising(), 1)
    before = snapshot(model)
    with pytest.raises(KeyError, match="from inside the model"):
        TorchOracle(model, target=0).value_and_gradient(IMAGES)
    assert snapshot(model) == before


def test_a_layer_is_replaced_on_a_copy():
    model = nets.tokens()
    before = snapshot(model)
    oracle = TorchOracle(model, layer="embeddings", output="logits", target=0)
    held = {"ids": np.zeros((4, 7), int), "mask": np.ones((4, 7), bool)}
    oracle.value_and_gradient(oracle.layer_output(**held), **held)
    with pytest.raises(ValueError, match="in its place have"):
        oracle.value_and_gradient(np.ones((4, 7, 3)), **held)
    assert snapshot(model) == before
    with ThreadPoolExecutor(1) as pool:  # a hook left behind would show on the next call of this thread
        pool.submit(oracle.value_and_gradient, np.ones((4, 7, 4)), **held).result()
    assert np.isfinite(oracle.layer_output(**held)).all()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_grad_mode_does_not_matter(mode):
    expected = TorchOracle(nets.normalised(), target=1).value_and_gradient(IMAGES)
    with mode():
        was = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        oracle = TorchOracle(nets.normalised(), target=1)  # its weights are inference tensors in that mode
        got = oracle.value_and_gradient(IMAGES)
        outputs = oracle.predict(IMAGES)
        assert was == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(outputs[:, 1], expected[0], rtol=1e-6)


def test_the_callers_autocast_does_not_reach_the_model():
    oracle = TorchOracle(nets.normalised(), target=1)
    expected = oracle.value_and_gradient(IMAGES)[1]
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(oracle.value_and_gradient(IMAGES)[1], expected)
    coarse = TorchOracle(nets.normalised(), target=1, autocast=torch.bfloat16).value_and_gradient(IMAGES)[1]
    error = np.linalg.norm(coarse - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.2


def test_training_in_place_is_seen_and_the_modes_are_those_of_the_construction():
    model = nets.normalised()
    oracle = TorchOracle(model, target=1)
    first = oracle.value_and_gradient(IMAGES)[0]
    model.train()
    with torch.no_grad():
        model.head.bias += 2
        model.norm.running_mean += 0.1
    second = oracle.value_and_gradient(IMAGES)[0]
    expected = model.eval()(torch.tensor(IMAGES))[:, 1].detach()
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, expected, rtol=1e-5)


def test_parametrised_and_tied_weights():
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    parametrizations.weight_norm(nets.seeded(model)[0])
    model[4].weight = model[2].weight
    model.eval()
    before = snapshot(model)
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    _, gradients = TorchOracle(model, target=7).value_and_gradient(x)
    assert snapshot(model) == before
    leaf = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(model(leaf)[:, 7].sum(), leaf)
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)


def test_the_weights_are_shared_not_copied():
    model = nets.normalised()
    oracle = TorchOracle(model, target=1)
    with oracle._passes.source.model() as replica:
        ours = dict(replica.named_parameters())
        for name, parameter in model.named_parameters():
            assert ours[name].data_ptr() == parameter.data_ptr()
            assert ours[name] is not parameter
            assert not ours[name].requires_grad
