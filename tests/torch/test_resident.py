"""Blocks that are drawn, moved and reduced on the model's device; the CPU stands in for it.

The law is the host's and the bits are not. Where there is a CUDA device the laws are tested there too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

import mollikit_torch.oracle  # noqa: E402
import mollikit_torch.reduction  # noqa: E402
from mollikit_torch import TorchOracle  # noqa: E402
from mollikit_torch.draws import KERNELS, displacements, groups_of_normals  # noqa: E402
from mollikit_torch.reduction import second_moments  # noqa: E402
from mollikit_torch.views import on_device  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.engine.streams import Key  # noqa: E402
from mollikit.moments import SecondMoments  # noqa: E402
from mollikit.pointsets import Normals  # noqa: E402
from mollikit.testing import rounding  # noqa: E402
from tests.core.test_determinism import bits  # noqa: E402
from tests.core.test_unbiased import assert_agrees  # noqa: E402
from tests.torch import nets  # noqa: E402

cuda = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
every_device = pytest.mark.parametrize("device", ["cpu", cuda])
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(4))
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
CPU = torch.device("cpu")
X = np.random.default_rng(1).standard_normal(6)
IMAGE = np.random.default_rng(9).standard_normal((2, 8, 8)).astype(np.float32)


def cubes(points):
    return (points**3).sum(1) / 3


def oracle(model=cubes, device="cpu", **options):
    return TorchOracle(model, device=device, resident=True, **options)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_the_kernels_are_those_of_the_host(kernel):
    half = np.append(np.linspace(1e-3, 8, 201), 1e-8)
    z = np.concatenate([half, -half])
    host = kernel(1.0).displacements(Normals(z))
    ours = displacements(kernel(1.0), torch.tensor(z)).numpy()
    # Near zero the quantile of p = 1/2 - 4e-9 has lost the digits that p has lost.
    np.testing.assert_allclose(ours, host, rtol=rounding(float), atol=1e-15)
    np.testing.assert_array_equal(ours[: len(half)], -ours[len(half) :])


@every_device
@every_sampler
def test_groups_have_the_samplers_law_and_depend_on_their_number_alone(device, sampler):
    where, size = torch.device(device), sampler.group_size(40)

    def drawn(start, stop, seed=3, item=0):
        key = Key(seed, item)
        return groups_of_normals(key, sampler, start, stop, 40, where, torch.float32).cpu().numpy()

    whole = drawn(0, 300)
    assert whole.shape == (300, size, 40)
    for start, stop in ((0, 1), (17, 140), (299, 300)):
        np.testing.assert_array_equal(drawn(start, stop), whole[start:stop])
    for member in range(size):
        assert stats.kstest(whole[:, member].ravel(), "norm").pvalue > 1e-4
    if size > 1:
        assert np.abs(whole.sum(1)).max() < 1e-5
    assert not set(whole.ravel()) & set(drawn(0, 300, seed=4).ravel()[:100])
    assert not set(whole.ravel()) & set(drawn(0, 300, item=1).ravel()[:100])


@every_device
@every_sampler
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Uniform, mk.Logistic], ids=lambda k: k.__name__)
def test_gradients_agree_with_the_closed_form(device, sampler, kernel):
    widths = np.linspace(0.2, 1.0, 6)
    estimate = mk.Pathwise(kernel(widths), sampler).estimate(
        oracle(device=device), X, budget=mk.Evaluations(1 << 13), rng=5
    )
    truth = X**2 + widths**2 * kernel(1.0).variance
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, X**2)


@every_sampler
def test_the_moments_are_those_of_the_groups_means(sampler):
    views = {"pooled": mk.ChannelSum().then(mk.Pool(3))}
    smooth = mk.Pathwise(mk.Gaussian(0.3), sampler, block=16)
    estimate = smooth.estimate(
        oracle(nets.cnn(), target=1), IMAGE, views=views, budget=mk.Evaluations(48), rng=2
    )
    host = TorchOracle(nets.cnn(), target=1)
    drawn = groups_of_normals(Key(2), sampler, 0, estimate.n_groups, IMAGE.size, CPU, torch.float32)
    points = IMAGE + np.float32(0.3) * drawn.numpy().reshape(-1, *IMAGE.shape)
    values, gradients = host.value_and_gradient(points)
    means = gradients.reshape(estimate.n_groups, -1, *IMAGE.shape).mean(1, dtype=float)
    averages = values.reshape(estimate.n_groups, -1).mean(1, dtype=float)
    for got, groups in (
        (estimate.tally.gradient, means.reshape(len(means), -1)),
        (estimate.tally.views["pooled"], views["pooled"](means)),
        (estimate.tally.output, averages),
    ):
        scale = np.abs(groups).max()
        np.testing.assert_allclose(got.mean, groups.mean(0), rtol=1e-5, atol=1e-5 * scale)
        deviations = ((groups - groups.mean(0)) ** 2).sum(0)
        np.testing.assert_allclose(got.m2, deviations, rtol=1e-3, atol=1e-5 * scale**2)


@every_sampler
def test_second_moments_are_those_of_the_host(sampler):
    points = np.random.default_rng(0).standard_normal((12 * sampler.group_size(1), 2, 3)).astype(np.float32)
    groups = points.reshape(12, -1, 2, 3)
    host = SecondMoments.of_points(groups.mean(1, dtype=float), groups)
    device = second_moments(torch.tensor(points), sampler.group_size(1))
    for part in SecondMoments.parts():
        np.testing.assert_allclose(getattr(device, part), getattr(host, part), rtol=1e-9, atol=1e-12)


def test_the_variance_is_estimated_on_the_device():
    views = {"whole": mk.ChannelSum()}
    smooth = mk.Pathwise(mk.Gaussian(0.5), second_moments=True)
    estimate = smooth.estimate(oracle(), X, views=views, budget=mk.Evaluations(1 << 13), rng=1)
    truth = 4 * X**2 * 0.25 + 2 * 0.25**2  # of (x + s z)^2
    variance = estimate.variance
    assert_agrees(variance.value, variance.standard_error, variance.degrees_of_freedom, truth)
    whole = estimate.views["whole"].variance
    assert_agrees(whole.value, whole.standard_error, whole.degrees_of_freedom, np.asarray(truth.sum()))


@every_device
def test_no_batch_of_points_crosses(device, monkeypatch):
    crossed = []

    def watched(function):
        def call(array, *arguments):
            crossed.append(np.prod(array.shape, dtype=int))
            return function(array, *arguments)

        return call

    for module in (mollikit_torch.oracle, mollikit_torch.reduction):
        monkeypatch.setattr(module, "array_of", watched(module.array_of))
    monkeypatch.setattr(mollikit_torch.oracle, "tensor_of", watched(mollikit_torch.oracle.tensor_of))
    monkeypatch.setattr(TorchOracle, "value_and_gradient", None)
    model = nets.cnn().to(device)
    smooth = mk.Pathwise(mk.Gaussian(0.3), block=64)
    estimate = smooth.estimate(
        oracle(model, device), IMAGE, held={"target": 1}, budget=mk.Evaluations(512), rng=0
    )
    assert estimate.block == 64
    assert max(crossed) == IMAGE.size
    assert len(crossed) == 8 * 4, "mean and M2 of the gradient and of the output, for each block"


def test_the_host_and_the_device_have_one_law():
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3)), mk.Evaluations(1 << 11)
    device, host = (
        smooth.estimate(TorchOracle(nets.normalised(), target=1, resident=where), IMAGE, budget=budget, rng=0)
        for where in (True, False)
    )
    z = (device.gradient - host.gradient) / np.hypot(device.standard_error, host.standard_error)
    assert np.abs(z).max() < stats.norm.isf(1e-4 / 2 / z.size)
    assert np.abs(z).max() > 0.1, "other bits"
    assert device.provenance["drawn_on"] == "cpu: the law of the host's points, other bits"
    assert host.provenance["drawn_on"] is None
    with pytest.raises(ValueError, match=r"something else .*drawn_on"):
        smooth.estimate(TorchOracle(nets.normalised(), target=1), IMAGE, budget=budget, rng=0, resume=device)


BOTH = mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(4), weights=mk.Gaussian(mk.OfMagnitude(0.1)), block=32)
INPUTS = mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(4), block=32)
WEIGHTS = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.1)), block=32)
every_mode = pytest.mark.parametrize("smooth", [INPUTS, BOTH, WEIGHTS], ids=["inputs", "both", "weights"])


@every_mode
def test_executors_resuming_and_batches_do_not_change_the_bits(smooth):
    ours, budget = oracle(nets.mlp(), target=1), mk.Evaluations(160)
    x = X.astype(np.float32)
    expected = bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1)))
    with ThreadPoolExecutor(4) as executor:
        assert bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1), executor=executor)) == expected
    half = smooth.estimate(ours, x, budget=mk.Evaluations(64), rng=(3, 1))
    assert bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1), resume=half)) == expected
    batch = smooth.estimate_batch(ours, np.stack([x + 1, x]), budget=budget, rng=3)
    assert bits(batch[1]) == expected
    top = oracle(nets.mlp(), target="top")  # rows have targets of their own
    batch = smooth.estimate_batch(top, np.stack([-x, x]), budget=budget, rng=3)
    for k, row in enumerate((-x, x)):
        assert bits(batch[k]) == bits(smooth.estimate(top, row, budget=budget, rng=(3, k)))


@every_mode
def test_smoothed_weights_agree_with_the_host(smooth):
    x, budget = X.astype(np.float32), mk.Evaluations(512)
    device, host = (
        smooth.estimate(TorchOracle(nets.mlp(), target=1, resident=where), x, budget=budget, rng=0)
        for where in (True, False)
    )
    if smooth is WEIGHTS:  # whose random numbers come from the host in any case
        np.testing.assert_allclose(device.gradient, host.gradient, rtol=1e-6)
    z = (device.gradient - host.gradient) / np.hypot(device.standard_error, host.standard_error)
    assert np.abs(z).max() < stats.norm.isf(1e-4 / 2 / z.size)


def test_several_inputs_with_targets_masks_and_a_coordinate_that_stays():
    x = {"a": np.ones(3, np.float32), "b": np.full(4, 2, np.float32)}
    held = {"mask": np.array([1, 0, 1, 1]), "target": np.array(2)}
    kernels = {"a": mk.Gaussian([0.1, 0.0, 0.2]), "b": mk.Uniform(0.2)}
    device, host = (
        mk.Pathwise(kernels).estimate(
            TorchOracle(nets.TwoInputs().eval(), resident=where),
            x,
            held=held,
            budget=mk.Evaluations(4096),
            rng=0,
        )
        for where in (True, False)
    )
    for name in x:
        error = np.hypot(device.standard_error[name], host.standard_error[name])
        assert (np.abs(device.gradient[name] - host.gradient[name]) <= 4.5 * error + 1e-6).all()
    alone = mk.Pathwise({"b": mk.Uniform(0.2)}).estimate(
        oracle(nets.TwoInputs().eval()), x, held=held, budget=mk.Evaluations(64), rng=0
    )
    assert alone.standard_error["a"].max() > 0


def test_embeddings_are_smoothed_on_the_device():
    ours = oracle(nets.tokens(), layer="embeddings", output="logits", target=0)
    held = {"ids": np.arange(7) % 11, "mask": np.ones(7, bool)}
    start = ours.layer_output(**{name: array[None] for name, array in held.items()})[0]
    estimate = mk.Pathwise(mk.Gaussian(0.1)).estimate(
        ours, start, held=held, budget=mk.Evaluations(64), rng=0
    )
    assert estimate.gradient.shape == (7, 4)


@pytest.mark.parametrize(
    "view",
    [mk.ChannelSum(), mk.Pool(3), mk.Pool(4), mk.ChannelSum(-1), mk.ChannelSum().then(mk.Pool(5))],
    ids=repr,
)
def test_views_on_the_device_are_those_of_the_host(view):
    gradients = np.random.default_rng(0).standard_normal((3, 2, 8, 10))
    np.testing.assert_allclose(on_device("v", view)(torch.tensor(gradients)), view(gradients), rtol=1e-12)


@pytest.mark.parametrize(
    ("smooth", "views", "message"),
    [
        (mk.Pathwise(mk.Gaussian(0.3), mk.LatinHypercube(8)), {}, r"LatinHypercube.*is not drawn on cpu"),
        (mk.Pathwise(mk.StudentT(0.3, 5)), {}, r"StudentT is not drawn on cpu: give Gaussian"),
        (mk.Pathwise(mk.Truncated(mk.Gaussian(0.3), low=-9)), {}, r"TruncatedDraws is not drawn"),
        (mk.Pathwise(mk.Gaussian(0.3)), {"own": lambda g: g.sum((1, 2, 3))}, r"view 'own' works on arrays"),
    ],
)
def test_what_is_not_done_on_the_device_is_refused(smooth, views, message):
    calls = []

    def model(points):
        calls.append(points)
        return points.sum((1, 2, 3))

    with pytest.raises(ValueError, match=message) as refusal:
        smooth.estimate(oracle(model), IMAGE, views=views, budget=mk.Evaluations(64), rng=0)
    assert "resident=False" in str(refusal.value)
    assert not calls


def test_bad_input_is_told_before_the_run():
    with pytest.raises(ValueError, match=r"takes a batch of shape \(m, 6\)"):
        mk.Pathwise(mk.Gaussian(0.1)).estimate(
            oracle(nets.mlp(), target=0, input_shapes={"input": (6,)}), X[:5], budget=mk.Evaluations(64)
        )
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(
            oracle(lambda p: p.sqrt().sum(1)), X, budget=mk.Evaluations(64), rng=0
        )


def test_points_are_drawn_on_the_host_where_the_model_is():
    assert TorchOracle(nets.mlp(), target=0).lives_on is None
    assert oracle(nets.mlp(), target=0).lives_on == "cpu"
    assert oracle(nets.mlp(), target=0).describe()["resident"] is True


@pytest.mark.parametrize("weights", [None, mk.Gaussian(mk.OfMagnitude(0.2))], ids=["inputs", "both"])
def test_several_targets_share_a_forward_pass_where_the_model_lives(weights):
    smooth = mk.Pathwise(mk.Gaussian(0.3), weights=weights)
    module = nets.mlp()
    passes = []
    module.register_forward_hook(lambda *_: passes.append(1))
    oracle, x = TorchOracle(module, resident=True), np.linspace(-1, 1, 6).astype(np.float32)
    budget = mk.Evaluations(64)
    together = smooth.estimate_targets(oracle, x, [2, 0, 2], budget=budget, rng=0)
    shared = len(passes)
    passes.clear()
    for target, got in zip([2, 0, 2], together, strict=True):
        alone = smooth.estimate(oracle, x, held={"target": target}, budget=budget, rng=0)
        assert np.array_equal(got.gradient, alone.gradient)
        assert np.array_equal(got.standard_error, alone.standard_error)
        assert got.output.value == alone.output.value
    assert len(passes) == 3 * shared > 0
    assert "other bits" in together[0].provenance["drawn_on"]


def test_differences_take_the_hosts_samplers():
    sides = [
        mk.Side(mk.Pathwise(mk.Gaussian(width), mk.LatinHypercube(8)), oracle(), X) for width in (0.2, 0.3)
    ]
    apart = mk.difference(*sides, budget=mk.Evaluations(256), rng=0)
    assert_agrees(apart.gradient, apart.standard_error, apart.degrees_of_freedom, np.full(6, 0.2**2 - 0.3**2))


@pytest.mark.parametrize("scheme", [mk.Adaptive, mk.Subspace])
def test_schemes_that_are_learnt_are_drawn_by_the_host(scheme):
    device, host = (
        scheme(mk.Gaussian(0.3)).estimate(
            TorchOracle(cubes, resident=resident), X, budget=mk.Evaluations(1 << 10), rng=0
        )
        for resident in (True, False)
    )
    assert np.array_equal(device.gradient, host.gradient)
