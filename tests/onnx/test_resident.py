"""Blocks that a graph draws, moves and reduces itself; the CPU stands in for the device.

The law is the host's and the bits are not. Where CUDA is at work the laws are tested there too.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.version_converter
import onnxruntime as ort
import pytest
from mollikit_onnx import OnnxOracle
from mollikit_onnx.resident.reduction import second_moments
from mollikit_onnx.resident.views import seen
from mollikit_onnx.runtime import sessions
from onnx import TensorProto, helper
from scipy import stats

import mollikit as mk
from mollikit.moments import SecondMoments
from mollikit.testing import rounding
from tests.core.test_determinism import bits
from tests.core.test_unbiased import assert_agrees
from tests.onnx import models
from tests.onnx.cuda import needs_cuda
from tests.onnx.resident_graphs import (
    CPU,
    computed,
    every_provider,
    every_sampler,
    groups_of_normals,
)

X = np.random.default_rng(1).standard_normal(6)
IMAGE = np.random.default_rng(9).standard_normal((2, 8, 8)).astype(np.float32)


def cubes(element=TensorProto.FLOAT):
    """x (n, 6) -> sum of x^3 / 3 (n,), whose gradient is x^2."""
    kind = helper.tensor_dtype_to_np_dtype(element)
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Mul", ["x", "square"], ["cube"]),
        helper.make_node("ReduceSum", ["cube", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "third"], ["y"]),
    ]
    weights = {"axis": np.array([1]), "third": np.array(1 / 3, kind)}
    return models.model(nodes, [("x", element, ["n", 6])], [("y", element, ["n"])], weights)


def oracle(model=None, provider=CPU, **options):
    given = cubes() if model is None else model
    options = {"values": True, "resident": True, **options}
    return OnnxOracle(given, providers=[provider], **options)


def test_a_kernel_with_a_gap_is_refused():
    gap = mk.from_density(lambda t: np.exp(-((abs(t) - 3) ** 4)), 0.1)
    with pytest.raises(ValueError, match=r"no smooth function of normals.*resident=False"):
        mk.Pathwise(gap).estimate(oracle(), X, budget=mk.Evaluations(64), rng=0)


@every_provider
@every_sampler
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Uniform, mk.Logistic], ids=lambda k: k.__name__)
def test_gradients_agree_with_the_closed_form(provider, sampler, kernel):
    widths = np.linspace(0.2, 1.0, 6)
    estimate = mk.Pathwise(kernel(widths), sampler).estimate(
        oracle(provider=provider), X, budget=mk.Evaluations(1 << 13), rng=5
    )
    truth = X**2 + widths**2 * kernel(1.0).variance
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, X**2)


@every_sampler
def test_the_moments_are_those_of_the_groups_means(sampler):
    views = {"pooled": mk.ChannelSum().then(mk.Pool(3))}
    smooth = mk.Pathwise(mk.Gaussian(0.3), sampler, block=16)
    ours = oracle(models.cnn(), target=1)
    estimate = smooth.estimate(ours, IMAGE, views=views, budget=mk.Evaluations(48), rng=2)
    drawn = groups_of_normals(sampler, 0, estimate.n_groups, IMAGE.size, seed=2)
    points = IMAGE + np.float32(0.3) * drawn.reshape(-1, *IMAGE.shape)
    values, gradients = ours.value_and_gradient(points)
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
    groups = np.random.default_rng(0).standard_normal((12, sampler.group_size(1), 2, 3))
    host = SecondMoments.of_points(groups.mean(1), groups)

    def found(points):
        moments = second_moments(points)
        return [moments[part] for part in SecondMoments.parts()]

    for part, array in zip(SecondMoments.parts(), computed(found, points=groups), strict=True):
        np.testing.assert_allclose(array, getattr(host, part), rtol=1e-9, atol=1e-12)


@every_provider
def test_the_variance_is_estimated_where_the_model_lives(provider):
    views = {"whole": mk.ChannelSum()}
    smooth = mk.Pathwise(mk.Gaussian(0.5), second_moments=True)
    estimate = smooth.estimate(
        oracle(provider=provider), X, views=views, budget=mk.Evaluations(1 << 13), rng=1
    )
    truth = 4 * X**2 * 0.25 + 2 * 0.25**2  # of (x + s z)^2
    variance = estimate.variance
    assert_agrees(variance.value, variance.standard_error, variance.degrees_of_freedom, truth)
    whole = estimate.views["whole"].variance
    assert_agrees(whole.value, whole.standard_error, whole.degrees_of_freedom, np.asarray(truth.sum()))


@every_provider
@pytest.mark.parametrize("weights", [None, mk.Gaussian(mk.OfMagnitude(0.1))], ids=["inputs", "both"])
def test_no_batch_of_points_crosses(provider, weights, monkeypatch):
    crossed, run = [], sessions._run

    def watched(session, names, feed, *arguments):
        found = run(session, names, feed, *arguments)
        own = {name: array for name, array in feed.items() if name not in {"K1", "c1", "K2"}}
        crossed.append([array.size for array in (*own.values(), *found)])
        return found

    monkeypatch.setattr(sessions, "_run", watched)
    monkeypatch.setattr(OnnxOracle, "value_and_gradient", lambda *points, **held: pytest.fail("a batch"))
    smooth = mk.Pathwise(mk.Gaussian(0.3), weights=weights, block=64)
    estimate = smooth.estimate(
        oracle(models.cnn(), provider), IMAGE, held={"target": 1}, budget=mk.Evaluations(512), rng=0
    )
    assert estimate.block == (64 if weights is None else 8 * 8)
    assert max(map(max, crossed)) == IMAGE.size
    assert len(crossed) == (8 if weights is None else 512 // 8), (
        "one run for each block, or draw of the weights"
    )


@pytest.mark.parametrize("opset", [18, 23])
@every_provider
def test_no_batch_of_points_is_made_on_the_host(provider, opset, tmp_path):
    def profiled():
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        return options

    model = onnx.version_converter.convert_version(models.cnn(), opset)
    ours = oracle(model, provider, target=1, session_options=profiled)
    views = {"seen": mk.ChannelSum().then(mk.Pool(3))}
    smooth = mk.Pathwise(mk.Logistic(0.3), block=256, second_moments=True)
    smooth.estimate(ours, IMAGE, views=views, budget=mk.Evaluations(512), rng=0)
    (session,) = ours._sessions._blocks.values()
    events = json.loads(Path(session.end_profiling()).read_text())
    told = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    at_host = [
        int(node["output_size"])
        for node in told
        if node["provider"] == CPU or node["op_name"].startswith("Memcpy")
    ]
    assert len(told) > 50
    if provider == CPU:
        assert max(at_host) >= 256 * IMAGE.nbytes, "what is looked for is seen where the host does it all"
    else:
        table_of_kernel = 6 * 640 * 4
        assert max(at_host, default=0) <= table_of_kernel < 256 * IMAGE.nbytes


def test_the_host_and_the_graph_have_one_law():
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3)), mk.Evaluations(1 << 11)
    device, host = (
        smooth.estimate(oracle(models.cnn(), target=1, resident=where), IMAGE, budget=budget, rng=0)
        for where in (True, False)
    )
    z = (device.gradient - host.gradient) / np.hypot(device.standard_error, host.standard_error)
    assert np.abs(z).max() < stats.norm.isf(1e-4 / 2 / z.size)
    assert np.abs(z).max() > 0.1, "other bits"
    assert device.provenance["drawn_on"] == "cpu: the law of the host's points, other bits"
    assert host.provenance["drawn_on"] is None
    with pytest.raises(ValueError, match=r"something else .*drawn_on"):
        smooth.estimate(
            oracle(models.cnn(), target=1, resident=False), IMAGE, budget=budget, rng=0, resume=device
        )


BOTH = mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(4), weights=mk.Gaussian(mk.OfMagnitude(0.1)), block=32)
INPUTS = mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(4), block=32)
WEIGHTS = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.1)), block=32)
every_mode = pytest.mark.parametrize("smooth", [INPUTS, BOTH, WEIGHTS], ids=["inputs", "both", "weights"])


@every_provider
@every_mode
def test_executors_resuming_and_batches_do_not_change_the_bits(provider, smooth):
    ours, budget = oracle(models.mlp(), provider, target=1), mk.Evaluations(160)
    x = X.astype(np.float32)
    expected = bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1)))
    with ThreadPoolExecutor(4) as executor:
        assert bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1), executor=executor)) == expected
    half = smooth.estimate(ours, x, budget=mk.Evaluations(64), rng=(3, 1))
    assert bits(smooth.estimate(ours, x, budget=budget, rng=(3, 1), resume=half)) == expected
    batch = smooth.estimate_batch(ours, np.stack([x + 1, x]), budget=budget, rng=3)
    assert bits(batch[1]) == expected
    assert bits(batch[0]) != expected
    top = oracle(models.mlp(), provider, target="top")  # rows have targets of their own
    batch = smooth.estimate_batch(top, np.stack([-x, x]), budget=budget, rng=3)
    for k, row in enumerate((-x, x)):
        assert bits(batch[k]) == bits(smooth.estimate(top, row, budget=budget, rng=(3, k)))


def test_a_block_that_is_not_full_is_padded_and_points_do_not_depend_on_the_block():
    x = X.astype(np.float32)
    ours = oracle(models.mlp(), target=1)
    whole, other = (
        mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(4), block=block).estimate(
            ours, x, budget=mk.Evaluations(100), rng=1
        )
        for block in (48, 20)
    )
    assert whole.n_groups == other.n_groups == 25
    np.testing.assert_allclose(whole.gradient, other.gradient, rtol=1e-6)
    np.testing.assert_allclose(whole.standard_error, other.standard_error, rtol=1e-6)


@every_mode
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_smoothed_weights_agree_with_the_host(smooth, second):
    smooth = replace(smooth, second_moments=second)
    x, budget = X.astype(np.float32), mk.Evaluations(512)
    device, host = (
        smooth.estimate(oracle(models.mlp(), target=1, resident=where), x, budget=budget, rng=0)
        for where in (True, False)
    )
    if smooth.inputs is None:  # whose random numbers come from the host in any case
        np.testing.assert_allclose(device.gradient, host.gradient, rtol=1e-5)
        if second:
            np.testing.assert_allclose(device.variance.value, host.variance.value, rtol=1e-5)
    z = (device.gradient - host.gradient) / np.hypot(device.standard_error, host.standard_error)
    bound = stats.norm.isf(1e-4 / 2 / z.size)
    assert np.abs(z).max() < bound
    if second:
        a, b = device.variance, host.variance
        assert np.abs((a.value - b.value) / np.hypot(a.standard_error, b.standard_error)).max() < bound


def test_a_call_may_hold_fewer_points_than_share_a_draw_of_the_weights():
    law, x = mk.Gaussian(mk.OfMagnitude(0.1)), X.astype(np.float32)
    spread, whole = (
        mk.Pathwise(
            mk.Gaussian(0.3), mk.Recentred(4), weights=law, inputs_per_model=12, block=block
        ).estimate(oracle(models.mlp(), target=1), x, budget=mk.Evaluations(96), rng=2)
        for block in (5, 24)
    )
    np.testing.assert_allclose(spread.gradient, whole.gradient, rtol=1e-5)
    np.testing.assert_allclose(spread.standard_error, whole.standard_error, rtol=1e-5)


@every_provider
def test_several_inputs_with_targets_masks_and_a_coordinate_that_stays(provider):
    x = {"b": np.full(4, 2, np.float32), "a": np.ones(3, np.float32)}  # in an order other than the model's
    held = {"mask": np.array([1, 0, 1, 1]), "target": np.array(2)}
    kernels = {"a": mk.Gaussian([0.1, 0.0, 0.2]), "b": mk.Uniform(0.2)}
    views = {"a": mk.Input("a"), "b": mk.Input("b").then(mk.ChannelSum())}
    device, host = (
        mk.Pathwise(kernels, second_moments=where).estimate(
            oracle(models.two_inputs(), provider, resident=where),
            x,
            held=held,
            views=views,
            budget=mk.Evaluations(4096),
            rng=0,
        )
        for where in (True, False)
    )
    for name in x:
        error = np.hypot(device.standard_error[name], host.standard_error[name])
        assert (np.abs(device.gradient[name] - host.gradient[name]) <= 4.5 * error + 1e-6).all()
        assert device.views[name].value.shape == host.views[name].value.shape
    np.testing.assert_allclose(device.views["a"].value, device.gradient["a"])
    np.testing.assert_allclose(device.views["b"].value, device.gradient["b"].sum())
    alone = mk.Pathwise({"b": mk.Uniform(0.2)}).estimate(
        oracle(models.two_inputs(), provider), x, held=held, budget=mk.Evaluations(64), rng=0
    )
    assert alone.standard_error["a"].max() > 0


@pytest.mark.parametrize("shape", [["n"], ["n", 1], ["n", 3, 2], ["n", "h", "w"]])
def test_outputs_of_any_rank(shape):
    """Of x^2, whose smoothed gradient is 2 x at the target."""
    x = np.arange(1.0, 7.0).reshape(3, 2) if len(shape) == 3 else np.full([1] * (len(shape) - 1), 3.0)
    target = (2, 1) if len(shape) == 3 else None
    estimate = mk.Pathwise(mk.Gaussian(0.1), mk.Recentred(8)).estimate(
        oracle(models.squares(shape), target=target), x, budget=mk.Evaluations(64), rng=0
    )
    expected = 2 * x * (np.arange(x.size).reshape(x.shape) == x.size - 1)
    np.testing.assert_allclose(estimate.gradient, expected, rtol=1e-5)


def test_what_is_held_may_be_of_a_rank_that_the_model_does_not_tell():
    model = models.two_inputs()
    (mask,) = (value for value in model.graph.input if value.name == "mask")
    mask.type.tensor_type.ClearField("shape")
    x, held = {"a": np.ones(3), "b": np.ones(4)}, {"mask": np.array([1, 0, 1, 1])}
    smooth, budget = mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(64)
    known, unknown = (
        smooth.estimate(oracle(m, target=1), x, held=held, budget=budget, rng=0)
        for m in (models.two_inputs(), model)
    )
    np.testing.assert_allclose(unknown.gradient["b"], known.gradient["b"], rtol=1e-6)


def test_weights_that_are_declared_as_inputs_stay_constants():
    model, x = models.mlp(), X.astype(np.float32)
    old = models.mlp()
    old.ir_version = 3  # which declares each of them
    old.graph.input.extend(
        helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in model.graph.initializer
    )
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3)), mk.Evaluations(64)
    expected, found = (smooth.estimate(oracle(m, target=1), x, budget=budget, rng=0) for m in (model, old))
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-6)


def test_what_a_block_adds_has_kernels_on_cuda():
    """By ONNX Runtime's list of kernels, for operator sets up to 23: a sine, say, has none from 22 on."""
    gradient, smooth = oracle(models.cnn(), target=0), mk.Pathwise(mk.Logistic(0.3), second_moments=True)
    views = {"pooled": mk.ChannelSum().then(mk.Pool(3))}
    designs = []
    block = type(gradient._sessions).block

    def seen_by(self, design):
        designs.append(design)
        return block(self, design)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(gradient._sessions), "block", seen_by)
        smooth.estimate(gradient, IMAGE, views=views, budget=mk.Evaluations(32), rng=0)
    graph = gradient._sessions._block_graph(designs[0]).graph
    added = {node.op_type for node in graph.node if node.name.startswith("mollikit.block/")}
    known = (
        "Abs Add Cast Concat Div Expand Floor Gather Less Log MatMul Min Mul Neg Range ReduceMean ReduceSum"
    )
    known += " ReduceSumSquare Reshape Slice Split Sqrt Squeeze Sub Shape Unsqueeze Where"
    assert added <= set(known.split())
    assert {"Log", "Where", "MatMul"} <= added


def test_a_coordinate_of_width_zero_stays():
    smooth = mk.Pathwise(mk.Gaussian([0.3, 0, 0, 0.3, 0, 0.3]))
    estimate = smooth.estimate(oracle(), X, budget=mk.Evaluations(256), rng=0)
    stays = [1, 2, 4]
    np.testing.assert_allclose(estimate.gradient[stays], X[stays] ** 2, rtol=1e-6)
    assert (estimate.standard_error[stays] == 0).all()
    assert (estimate.standard_error[[0, 3, 5]] > 0).all()


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_the_points_are_of_the_models_type(element):
    estimate = mk.Pathwise(mk.Gaussian(0.3), mk.Independent()).estimate(
        oracle(cubes(element)), X, budget=mk.Evaluations(1 << 10), rng=0
    )
    eps = float(np.finfo(helper.tensor_dtype_to_np_dtype(element)).eps)
    bound = 5 * estimate.standard_error + 4 * X**2 * eps
    assert (np.abs(estimate.gradient - X**2 - 0.09) < bound).all()


@pytest.mark.parametrize(
    "view",
    [mk.ChannelSum(), mk.Pool(3), mk.Pool(4), mk.ChannelSum(-1), mk.ChannelSum().then(mk.Pool(5))],
    ids=repr,
)
def test_views_in_the_graph_are_those_of_the_host(view):
    gradients = np.random.default_rng(0).standard_normal((3, 2, 8, 10))
    found = computed(lambda gradients: seen(view, gradients), gradients=gradients)
    np.testing.assert_allclose(found, view(gradients), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("smooth", "views", "message"),
    [
        (mk.Pathwise(mk.Gaussian(0.3), mk.LatinHypercube(8)), {}, r"LatinHypercube.*is not drawn on cpu"),
        (mk.Pathwise(mk.Truncated(mk.Gaussian(0.3), low=-9)), {}, r"TruncatedDraws is not drawn"),
        (mk.Pathwise(mk.Gaussian(0.3)), {"own": lambda g: g.sum((1, 2, 3))}, r"view 'own' works on arrays"),
    ],
)
def test_what_is_not_done_in_the_graph_is_refused(smooth, views, message, monkeypatch):
    calls = []
    monkeypatch.setattr(sessions, "_run", lambda *arguments: calls.append(arguments))
    with pytest.raises(ValueError, match=message) as refusal:
        smooth.estimate(oracle(models.cnn(), target=0), IMAGE, views=views, budget=mk.Evaluations(64), rng=0)
    assert "resident=False" in str(refusal.value)
    assert not calls


def test_bad_input_is_told_before_the_run(monkeypatch):
    calls = []
    smooth, budget = mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(64)
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "_run", lambda *arguments: calls.append(arguments))
        with pytest.raises(ValueError, match=r"takes a batch of shape \(m, 6\)"):
            smooth.estimate(oracle(models.mlp(), target=0), X[:5], budget=budget)
        with pytest.raises(ValueError, match="target"):
            smooth.estimate(oracle(models.mlp()), X, held={"target": 9}, budget=budget)
        x = {"a": np.ones(3), "b": np.ones(4)}
        with pytest.raises(ValueError, match="no array was given for the model's input 'mask'"):
            smooth.estimate(oracle(models.two_inputs(), target=0), x, budget=budget)
    assert not calls
    root = models.model(
        [helper.make_node("Sqrt", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("y", TensorProto.FLOAT, ["n", 1])],
    )
    with pytest.raises(FloatingPointError, match="the oracle's gradient is NaN or infinite in groups 0 to"):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(oracle(root), np.zeros(1), budget=budget, rng=0)


def test_memory_that_is_not_there_is_told_as_such():
    with pytest.raises(MemoryError, match="found no memory for a batch of 8"):
        mk.Pathwise(mk.Gaussian(1.0), block=8).estimate(
            oracle(models.expanding()), np.zeros(1), budget=mk.Evaluations(16), rng=0
        )


def test_a_comparison_leaves_out_what_is_not_drawn_in_the_graph():
    ours, x = oracle(models.mlp(), target="top"), X.astype(np.float32)
    result = mk.compare(ours, x, rounds=4, seconds=None, evaluations=(16,), rng=0)
    assert {row.scheme for row in result.rows} == {"Independent", "Antithetic", "Recentred"}
    assert "is not drawn on cpu" in result.left_out["Sobol"]
    with pytest.raises(ValueError, match=r"Sobol.*is not drawn on cpu"):
        mk.compare(ours, x, schemes={"a": mk.Independent(), "b": mk.Sobol(4)}, evaluations=(64,), rng=0)
    with pytest.raises(ValueError, match="view 'own' works on arrays"):
        mk.compare(ours, x, views={"own": lambda g: g.sum(1)}, evaluations=(16,), rng=0)


def test_points_are_drawn_on_the_host_where_the_model_is():
    assert OnnxOracle(models.mlp(), target=0).lives_on is None
    assert oracle(models.mlp(), target=0).lives_on == "cpu"
    assert oracle(models.mlp(), target=0).describe()["resident"] is True
    with pytest.raises(ValueError, match=r"batch axis is fixed at 1.*leave resident= out"):
        oracle(models.mlp(batch=1), target=0)


@needs_cuda
def test_cuda_is_resident_unless_asked_otherwise():
    def lives_on(batch="n", **options):
        ours = OnnxOracle(models.mlp(batch=batch), target=0, providers=["CUDAExecutionProvider"], **options)
        return ours.lives_on

    assert lives_on() == "cuda:0"
    assert lives_on(resident=False) is None
    assert lives_on(batch=1) is None


def test_sessions_of_blocks_are_shared_and_bounded():
    ours, x = oracle(models.mlp(), target=1), X.astype(np.float32)

    def run(smooth, evaluations, target=1):
        smooth.estimate(ours, x, held={"target": target}, budget=mk.Evaluations(evaluations), rng=0)
        return len(ours._sessions._blocks)

    assert run(mk.Pathwise(mk.Gaussian(0.3)), 64) == 1
    assert run(mk.Pathwise(mk.Gaussian(0.1), block=16), 200, target=3) == 1
    assert run(mk.Pathwise(mk.Cauchy(0.1)), 64) == run(mk.Pathwise(mk.Laplace(0.1)), 64) == 2
    mk.Pathwise(mk.Gaussian(0.3)).estimate(ours, x, budget=mk.Seconds(0.05), rng=0)
    assert ours._sessions._gradient is None, "no other session was built, not even to time a call"
    for points in range(2, 9):
        run(mk.Pathwise(mk.Gaussian(0.3), mk.Recentred(points)), 64)
    assert len(ours._sessions._blocks) == 4


@every_provider
@pytest.mark.parametrize("weights", [None, mk.Gaussian(mk.OfMagnitude(0.2))], ids=["inputs", "both"])
def test_several_targets_share_a_forward_pass_where_the_model_lives(provider, weights, monkeypatch):
    runs, run = [], sessions._run

    def counted(*arguments):
        runs.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(sessions, "_run", counted)
    smooth = mk.Pathwise(mk.Gaussian(0.3), weights=weights)
    ours, x = oracle(models.mlp(), provider), np.linspace(-1, 1, 6).astype(np.float32)
    budget = mk.Evaluations(64)
    together = smooth.estimate_targets(ours, x, [2, 0, 2], budget=budget, rng=0)
    shared = len(runs)
    runs.clear()
    for target, got in zip([2, 0, 2], together, strict=True):
        alone = smooth.estimate(ours, x, held={"target": target}, budget=budget, rng=0)
        assert provider != CPU or bits(got) == bits(alone)
        np.testing.assert_allclose(got.gradient, alone.gradient, rtol=rounding(np.float32))
        np.testing.assert_allclose(got.standard_error, alone.standard_error, rtol=rounding(np.float32))
        np.testing.assert_allclose(got.output.value, alone.output.value, rtol=rounding(np.float32))
    assert len(runs) == 3 * shared > 0
    assert "other bits" in together[0].provenance["drawn_on"]
