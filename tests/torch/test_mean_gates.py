"""Mean gates of PyTorch models: as `tests/onnx/test_mean_gates.py`, and what PyTorch alone can do."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mollikit_torch import MeanGates, TorchOracle
from mollikit_torch.mean_gates import NoMeanGateError
from scipy.special import ndtr
from torch import nn
from torch.nn import functional

import mollikit as mk
from tests.onnx.architectures.catalogue import ARCHITECTURES

RNG = np.random.default_rng(7)
W, V, B = RNG.standard_normal((6, 5)) / 2, RNG.standard_normal((5, 1)), RNG.standard_normal(5)
X = RNG.standard_normal(6).astype(np.float32)
IMAGE = RNG.standard_normal((2, 8, 8)).astype(np.float32)
SCALE = 0.5
SMOOTH = mk.Gaussian(SCALE)


def linear(weights: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    layer = nn.Linear(*weights.shape, bias=bias is not None)
    layer.weight.data = torch.tensor(weights.T, dtype=torch.float32)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=torch.float32)
    return layer


class Net(nn.Module):
    """One layer, a function of it and of the input, and the sum by V."""

    def __init__(self, act) -> None:
        super().__init__()
        self.first, self.second, self.last = linear(W, B), linear(W[::-1].copy() / 4), linear(V)
        self.act = act

    def forward(self, x):
        return self.last(self.act(self.first(x), self.second(x)))


def net(act) -> nn.Module:
    return Net(act).eval()


def convolutional(*rest: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *rest, nn.Flatten(), nn.LazyLinear(1))


def seen(model: nn.Module, x: np.ndarray) -> nn.Module:
    """With the sizes of lazy layers filled in."""
    model(torch.from_numpy(x)[None])
    return model.eval()


def surrogate(model, x: np.ndarray, forwards: int, rng: int = 0, **options: object) -> np.ndarray:
    oracle = TorchOracle(model, target=options.pop("target", 0))
    return MeanGates(SMOOTH, forwards, **options).surrogate(oracle, x, rng=rng).gradient


def truth(model, x: np.ndarray, n: int = 1 << 15) -> np.ndarray:
    estimate = mk.Pathwise(SMOOTH, block=2048).estimate(
        TorchOracle(model, target=0), x, budget=mk.Evaluations(n), rng=9
    )
    return estimate.gradient


def error(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def test_a_linear_net_is_exact():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_()
    model = seen(convolutional(norm, nn.AvgPool2d(2), nn.Dropout(), nn.ReflectionPad2d(1)), IMAGE)
    exact = TorchOracle(model, target=0).value_and_gradient(IMAGE[None])[1][0]
    np.testing.assert_allclose(surrogate(model, IMAGE, 4), exact, rtol=1e-4, atol=1e-7)


def test_products_of_two_linear_tensors_are_exact_under_recentred_points():
    U = W[::-1] / 4
    expected = (W * (X @ U) + U * (X @ W + B)) @ V
    got = surrogate(net(lambda z, u: z * u), X, 16, sampler=mk.Recentred(8))
    np.testing.assert_allclose(got, expected[:, 0], rtol=1e-4, atol=1e-5)


def test_one_layer_of_relu_is_the_closed_form():
    exact = W @ (V[:, 0] * ndtr((X @ W + B) / (SCALE * np.linalg.norm(W, axis=0))))
    oracle, gates = TorchOracle(net(lambda z, u: torch.relu(z)), target=0), MeanGates(SMOOTH, 512)
    maps = [gates.surrogate(oracle, X, rng=rng).gradient for rng in range(24)]
    spread = np.std(maps, axis=0, ddof=1) / np.sqrt(24)
    assert np.abs(np.mean(maps, axis=0) - exact).max() < 4 * spread.max() + 1e-3
    assert np.abs(np.mean(maps, axis=0) - exact).max() < 0.01 * np.abs(exact).max()


ONE = {
    "relu": lambda z, u: functional.relu(z),
    "relu in place": lambda z, u: functional.relu_(z),
    "in place on a view": lambda z, u: (z[:, :2].relu_(), z)[1],
    "clamp": lambda z, u: z.clamp(0, 1),
    "leaky_relu": lambda z, u: functional.leaky_relu(z, 0.1),
    "prelu": lambda z, u: functional.prelu(z, torch.full((5,), 0.2)),
    "elu": lambda z, u: functional.elu(z),
    "sigmoid": lambda z, u: z.sigmoid(),
    "softplus": lambda z, u: functional.softplus(z),
    "hardswish": lambda z, u: functional.hardswish(z),
    "gelu": lambda z, u: functional.gelu(z),
    "mish": lambda z, u: functional.mish(z),
    "silu, written out": lambda z, u: z * torch.sigmoid(z),
    "where": lambda z, u: torch.where(z > 0, z, 0.1 * z),
    "where, against zeros": lambda z, u: torch.where(z > 0, z, torch.zeros_like(z)),
    "a mask": lambda z, u: z * (z > 0).float(),
    "square": lambda z, u: z**2,
    "exp": lambda z, u: z.exp(),
    "squeeze and excite": lambda z, u: z * z.mean(1, keepdim=True).sigmoid(),
    "maximum": torch.maximum,
    "max over places": lambda z, u: z + z.max(1, keepdim=True)[0] + z.amax(1, keepdim=True),
    "quotient": lambda z, u: z / u.exp(),
    "log_softmax": lambda z, u: functional.log_softmax(z, -1),
    "matrix product": lambda z, u: (z[:, :, None] @ u[:, None, :]).sum(1),
    "two functions of one": lambda z, u: z.cos() + z.sin() + z.sigmoid(),
    "rows last": lambda z, u: torch.relu(z.T).T,
}


@pytest.mark.parametrize("name", ONE)
def test_one_layer_is_right_for_every_operator(name):
    model = net(ONE[name])
    assert error(surrogate(model, X, 2048), truth(model, X)) < 0.04


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
    ],
)
def test_pools_choose_as_often_as_they_did(pool):
    model = seen(convolutional(pool), IMAGE)
    assert error(surrogate(model, IMAGE, 2048), truth(model, IMAGE)) < 0.06


def test_recurrent_nets_are_written_out():
    torch.manual_seed(0)
    cell = nn.GRU(1, 3, batch_first=True)
    model = net(lambda z, u: z + cell(z[:, :, None])[0].sum(2))
    assert error(surrogate(model, X, 1024), truth(model, X)) < 0.04


def test_normalizations_are_written_out_and_softmax_is_close():
    groups = seen(convolutional(nn.GroupNorm(2, 4)), IMAGE)
    assert error(surrogate(groups, IMAGE, 512), truth(groups, IMAGE)) < 0.1
    for act in (lambda z, u: functional.layer_norm(z, (5,)), lambda z, u: functional.rms_norm(z, (5,))):
        assert error(surrogate(net(act), X, 2048), truth(net(act), X)) < 0.25
    soft = net(lambda z, u: z.softmax(-1))
    assert 0.002 < error(surrogate(soft, X, 2048), truth(soft, X)) < 0.2


@pytest.mark.parametrize(
    "name", ["mobilenet-v3", "efficientnet", "unet-bilinear", "vit", "swin", "yolo", "diffusion"]
)
def test_whole_architectures_have_their_gradient_where_there_is_little_noise(name):
    architecture = ARCHITECTURES[name]
    drawn = architecture.draw(0, 1, 0)
    held = {key: array[0] for key, array in drawn.items() if array.dtype != np.float32}
    x = {key: array[0].astype(np.float64) for key, array in drawn.items() if key not in held}

    def first(outputs):
        return outputs[0] if isinstance(outputs, tuple | list) else outputs

    net = architecture.net().double()
    oracle = TorchOracle(net, output=first, target=lambda y: y.flatten(1)[:, 0])
    kernel = mk.Gaussian(1e-4)
    found = MeanGates(kernel, 16).surrogate(oracle, x, held=held, rng=0).gradient
    # Of the smoothed net, since a kink may lie within the noise.
    reference = mk.Pathwise(kernel).estimate(oracle, x, held=held, budget=mk.Evaluations(64), rng=0).gradient
    for key in x:
        assert error(found[key], reference[key]) < 0.01


class Attention(nn.Module):
    """One block of a transformer, with the batch first or second."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, activation="gelu")
        self.batch_first = batch_first

    def forward(self, x):
        return self.block(x)[:, 0] if self.batch_first else self.block(x.transpose(0, 1))[0]


def test_a_transformer_has_mean_gates_wherever_its_batch_lies():
    x = RNG.standard_normal((4, 8)).astype(np.float32)
    first, second = (Attention(batch_first).eval() for batch_first in (True, False))
    maps = [surrogate(model, x, 256) for model in (first, second)]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-4)
    assert error(maps[0], truth(first, x)) < 0.3


def deep() -> nn.Sequential:
    rng = np.random.default_rng(3)
    layers = [linear(rng.standard_normal((12 if k else 6, 12)) / 2) for k in range(4)]
    return nn.Sequential(
        *(part for layer in layers for part in (layer, nn.ReLU(inplace=True))),
        linear(rng.standard_normal((12, 2))),
    ).eval()


def test_the_same_seed_gives_the_same_bits_from_any_thread_and_the_model_is_left_as_it_is():
    model = deep().requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    oracle, gates = TorchOracle(model, target=0), MeanGates(SMOOTH, 20)
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda k: gates.surrogate(oracle, X, rng=k % 2).gradient, range(8)))
    for k, found in enumerate(maps):
        np.testing.assert_array_equal(found, maps[k % 2])
    assert np.abs(maps[0] - maps[1]).max() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_weights_trained_in_place_and_others_lent_are_seen():
    model, gates = deep(), MeanGates(SMOOTH, 16)
    oracle = TorchOracle(model, target=0)
    old = gates.surrogate(oracle, X, rng=0).gradient
    doubled = {"8.weight": 2 * model[8].weight.detach().numpy()}
    lent = gates.surrogate(oracle.reweighted(doubled), X, rng=0).gradient
    np.testing.assert_allclose(lent, 2 * old, rtol=1e-4)
    np.testing.assert_array_equal(gates.surrogate(oracle, X, rng=0).gradient, old)
    with torch.no_grad():
        model[8].weight *= 2
    np.testing.assert_array_equal(gates.surrogate(oracle, X, rng=0).gradient, lent)


def test_targets_held_inputs_and_layers_travel_along():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = linear(W, B)

        def forward(self, x, m):
            return torch.relu(self.first(x) * m)

    oracle = TorchOracle(Masked().eval())
    mask, gates = np.array([1, 0.5, 2, 1, 1], np.float32), MeanGates(SMOOTH, 512)
    probability = ndtr((X @ W + B) / (SCALE * np.linalg.norm(W, axis=0)))
    expected = W * (mask * probability)
    for target in range(5):
        held = {"m": mask, "target": np.array(target)}
        got = gates.surrogate(oracle, {"x": X}, held=held, rng=0).gradient["x"]
        np.testing.assert_allclose(got, expected[:, target], atol=0.05 * np.abs(W).max() * mask[target])
    summed = TorchOracle(Masked().eval(), target=lambda y: y.sum(1))
    got = gates.surrogate(summed, {"x": X}, held={"m": mask}, rng=0).gradient["x"]
    np.testing.assert_allclose(got, expected.sum(1), atol=0.1)
    top = int(np.argmax(np.maximum(X @ W + B, 0) * mask))
    maps = [
        gates.surrogate(TorchOracle(Masked().eval(), target=t), {"x": X}, held={"m": mask}, rng=0).gradient
        for t in ("top", top)
    ]
    np.testing.assert_array_equal(maps[0]["x"], maps[1]["x"])
    model = deep()
    behind = TorchOracle(model, layer="1", target=0)
    hidden = behind.layer_output(input=X[None])[0]
    rest = TorchOracle(model[2:], target=0)
    maps = [
        gates.surrogate(behind, hidden, held={"input": X}, rng=0).gradient,
        gates.surrogate(rest, hidden, rng=0).gradient,
    ]
    np.testing.assert_allclose(*maps, rtol=1e-5, atol=1e-6)


def test_the_risk_is_audited_and_the_gates_combine():
    oracle = TorchOracle(deep(), target=0)
    reference = truth(deep(), X)
    gates = MeanGates(SMOOTH, 64)
    runs = [gates.estimate(oracle, X, audit=mk.Evaluations(256), rng=rng) for rng in range(12)]
    real = np.mean([np.square(e.gradient - reference).sum() for e in runs])
    stated = [e.risk for e in runs]
    assert abs(np.mean(stated) - real) < 4 * np.std(stated, ddof=1) / np.sqrt(12) + 0.02 * real
    assert runs[0].n_evaluations == 256 + 64 / 3 + 1
    combined = mk.Combined(mk.Pathwise(SMOOTH, mk.Independent()), gates)
    assert "mean gates" in combined.estimate(oracle, X, budget=mk.Evaluations(64), rng=0).biased


def straight_through(z):
    return z + (z.round() - z).detach()


def frozen(z):
    with torch.no_grad():
        gate = (3 * z).sigmoid()
    return z * gate


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.relu()

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class SetUp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z):
        return z.relu()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return 2 * g


REFUSED = {
    "aten.topk": lambda z, u: z.topk(5)[0],
    "aten.prod": lambda z, u: z.prod(1, keepdim=True) + z,
    "aten.sort": lambda z, u: z.sort()[0],
    "aten.where": lambda z, u: torch.where(z > u, z, -u),
    "values are": lambda z, u: z if z.sum() > 0 else -z,
    "random numbers": lambda z, u: functional.dropout(z.relu(), 0.5, training=True),
    "look for detach": lambda z, u: straight_through(z),
    "detach or no_grad": lambda z, u: frozen(z),
    "shows no autograd.Function": lambda z, u: Own.apply(z),
    "custom_function_call": lambda z, u: SetUp.apply(z),
    "native_batch_norm": lambda z, u: functional.instance_norm(z[:, None])[:, 0],
    "another way": lambda z, u: z.relu() if len(z) < 4 else z.tanh(),
    "mixed, or out of order": lambda z, u: (z - 0.5 * z.sum(0)).relu(),
    "influence each other": lambda z, u: z * z.sum(0).sigmoid(),
}


@pytest.mark.parametrize("match", REFUSED)
def test_the_rest_is_refused_by_name(match):
    with pytest.raises(NoMeanGateError, match=match) as caught:
        surrogate(net(REFUSED[match]), X, 8)
    assert "use mollikit.Pathwise" in str(caught.value)


class Bowl:
    def value_and_gradient(self, points):
        return None, points


def test_bad_input_is_refused_before_any_work():
    oracle = TorchOracle(deep(), target=0)
    for bad, match in (
        (lambda: MeanGates(SMOOTH, 3), "at least 4 passes"),
        (lambda: MeanGates(mk.Cauchy(0.1)), "no variance"),
        (lambda: MeanGates(SMOOTH, 4, mk.Recentred(8)).surrogate(oracle, X, rng=0), "no group of 8"),
        (lambda: MeanGates(SMOOTH).surrogate(oracle, X * np.nan, rng=0), "NaN or infinite"),
        (lambda: MeanGates(SMOOTH).surrogate(TorchOracle(deep(), target=7), X, rng=0), "target 7"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
    with pytest.raises(TypeError, match="give a TorchOracle"):
        MeanGates(SMOOTH).surrogate(Bowl(), X, rng=0)


def test_a_compiled_model_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    with pytest.raises(TypeError, match="without compile="):
        MeanGates(SMOOTH).surrogate(TorchOracle(deep(), compile=True), X, rng=0)
