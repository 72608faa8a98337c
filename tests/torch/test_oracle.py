from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mollikit_onnx import OnnxOracle  # noqa: E402
from mollikit_torch import TorchOracle  # noqa: E402
from torch import nn  # noqa: E402

import mollikit as mk  # noqa: E402
from tests.onnx import models  # noqa: E402
from tests.torch import nets  # noqa: E402

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(9).standard_normal((4, 2, 8, 8)).astype(np.float32)
HELD = {"ids": np.arange(28).reshape(4, 7) % 11, "mask": np.arange(28).reshape(4, 7) % 3 > 0}


def test_values_and_gradients_by_hand():
    target = np.array([0, 4, 2, 2])
    values, gradients = TorchOracle(nets.mlp()).value_and_gradient(POINTS, target=target)
    expected, by_hand = models.mlp_by_hand(POINTS.astype(np.float64), target)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "model", "shape"),
    [(nets.mlp, models.mlp, (6,)), (nets.cnn, models.cnn, (2, 8, 8))],
)
def test_the_smoothed_gradient_is_that_of_onnx_from_the_same_seed(net, model, shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    smooth = mk.Pathwise(mk.Gaussian(0.3), block=32)
    ours, theirs = (
        smooth.estimate(oracle, x, budget=mk.Evaluations(256), rng=5)
        for oracle in (TorchOracle(net(), target="top"), OnnxOracle(model(), target="top", values=True))
    )
    other = smooth.estimate(TorchOracle(net(), target="top"), x, budget=mk.Evaluations(256), rng=6)
    scale = np.abs(theirs.gradient).max()
    assert np.abs(ours.gradient - theirs.gradient).max() < 1e-5 * scale
    assert np.abs(other.gradient - theirs.gradient).max() > 1e-4 * scale
    np.testing.assert_allclose(ours.standard_error, theirs.standard_error, rtol=1e-3)
    np.testing.assert_allclose(ours.output.value, theirs.output.value, rtol=1e-5)


def test_two_inputs_agree_with_onnx():
    rng = np.random.default_rng(3)
    x = {"a": rng.standard_normal(3).astype(np.float32), "b": rng.standard_normal(4).astype(np.float32)}
    kernels = {"a": mk.Gaussian(0.1), "b": mk.Uniform(0.2)}
    ours, theirs = (
        mk.Pathwise(kernels).estimate(
            oracle, x, held={"mask": [1, 0, 1, 1]}, budget=mk.Evaluations(64), rng=0
        )
        for oracle in (
            TorchOracle(nets.TwoInputs().eval(), target=2),
            OnnxOracle(models.two_inputs(), target=2),
        )
    )
    for name in x:
        np.testing.assert_allclose(ours.gradient[name], theirs.gradient[name], rtol=1e-5, atol=1e-6)


def test_a_batch_of_estimates_has_a_target_for_each_row():
    smooth, oracle = mk.Pathwise(mk.Gaussian(0.3), block=16), TorchOracle(nets.mlp())
    rows = smooth.estimate_batch(
        oracle, POINTS, held={"target": [3, 0, 1, 1]}, budget=mk.Evaluations(32), rng=1
    )
    alone = smooth.estimate(oracle, POINTS[2], held={"target": 1}, budget=mk.Evaluations(32), rng=(1, 2))
    np.testing.assert_array_equal(rows[2].gradient, alone.gradient)


class Pair(nn.Module):
    def forward(self, x):
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
    oracle = TorchOracle(Pair().eval(), output=output, target=target)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], expected(POINTS), rtol=1e-6)


def test_a_tuple_and_a_dataclass():
    oracle = TorchOracle(lambda x: (x.sum(1), x**2), output=1, target=3)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], 2 * POINTS * np.eye(6)[3], rtol=1e-6)
    by_name, by_function = (
        TorchOracle(nets.tokens(), layer="embeddings", **choice).value_and_gradient(
            np.ones((4, 7, 4), np.float32), **HELD
        )[1]
        for choice in ({"output": "logits", "target": 2}, {"target": lambda answer: answer.logits[:, 2]})
    )
    np.testing.assert_array_equal(by_name, by_function)


def test_an_element_of_an_output_of_higher_rank():
    outer = TorchOracle(lambda x: x[:, :, None] * x[:, None, :], target=(1, 4))
    values, gradients = outer.value_and_gradient(POINTS)
    np.testing.assert_allclose(values, POINTS[:, 1] * POINTS[:, 4], rtol=1e-6)
    np.testing.assert_allclose(gradients[:, 1], POINTS[:, 4], rtol=1e-6)
    by_row = outer.value_and_gradient(POINTS, target=np.array([[1, 4], [0, 0], [1, 4], [5, 2]]))[0]
    np.testing.assert_allclose(by_row[[1, 3]], [POINTS[1, 0] ** 2, POINTS[3, 5] * POINTS[3, 2]], rtol=1e-6)


def test_top_is_fixed_on_the_clean_input():
    oracle = TorchOracle(nets.mlp(), target="top")
    with pytest.raises(ValueError, match=r"call oracle.anchored\(inputs\)"):
        oracle.value_and_gradient(POINTS)
    outputs = oracle.predict(POINTS)
    for k in range(4):
        anchored = oracle.anchored(POINTS[k])
        np.testing.assert_array_equal(anchored.value(POINTS), outputs[:, outputs[k].argmax()])
    assert oracle.anchored(POINTS[0], target=np.array(1)) is oracle


def test_layer_output_gives_the_gradient_of_the_model_itself():
    model = nets.tokens()
    oracle = TorchOracle(model, layer="embeddings", output="logits", target=1)
    points = oracle.layer_output(**HELD)
    np.testing.assert_array_equal(points, model.embeddings.weight.detach().numpy()[HELD["ids"]])
    values, gradients = oracle.value_and_gradient(points, **HELD)
    ids, mask = (torch.from_numpy(HELD[name]) for name in ("ids", "mask"))
    np.testing.assert_allclose(values, model(ids, mask).logits[:, 1].detach(), rtol=1e-6)
    model(ids[:1], mask[:1]).logits[0, 1].backward()
    by_token = np.zeros((11, 4), np.float32)
    np.add.at(by_token, HELD["ids"][0], gradients[0])
    np.testing.assert_allclose(by_token, model.embeddings.weight.grad, rtol=1e-5, atol=1e-6)


def test_smoothing_at_a_layer():
    oracle = TorchOracle(nets.tokens(), layer="embeddings", output="logits", target="top")
    one = {name: array[0] for name, array in HELD.items()}
    points = oracle.layer_output(**{name: array[:1] for name, array in HELD.items()})[0]
    estimate = mk.Pathwise(mk.Gaussian(0.1)).estimate(
        oracle, points, held=one, budget=mk.Evaluations(64), rng=0
    )
    assert np.all(estimate.gradient[~one["mask"]] == 0)
    assert np.all(estimate.gradient[one["mask"]] != 0)


def test_memory_formats_agree_and_an_unfit_one_is_given_up():
    def gradients(model, **options):
        oracle = TorchOracle(model, target=1, **options)
        return oracle.value_and_gradient(IMAGES)[1], oracle.describe()["memory_format"]

    plain, form = gradients(nets.normalised(), memory_format=torch.contiguous_format)
    assert form == "contiguous_format"
    last, form = gradients(nets.normalised())
    assert form == "channels_last"
    np.testing.assert_allclose(last, plain, rtol=1e-4, atol=1e-7)
    assert last.flags.c_contiguous
    viewed, form = gradients(nets.viewing())
    assert form == "contiguous_format"
    np.testing.assert_allclose(viewed, plain, rtol=1e-4, atol=1e-7)
    with pytest.raises(RuntimeError, match="view"):
        gradients(nets.viewing(), memory_format=torch.channels_last)


def test_dtypes():
    for dtype, given in ((torch.float16, np.float16), (torch.bfloat16, np.float32)):
        oracle = TorchOracle(nets.mlp(dtype), target=1)
        values, gradients = oracle.value_and_gradient(POINTS)
        assert values.dtype == gradients.dtype == given
        exact = TorchOracle(nets.mlp(), target=1).value_and_gradient(POINTS)[1]
        np.testing.assert_allclose(gradients, exact, rtol=0.1, atol=0.05)
    values, gradients = TorchOracle(nets.mlp(), target=1).value_and_gradient(POINTS.astype(">f8"))
    assert gradients.dtype == np.float32
    np.testing.assert_allclose(gradients, exact, rtol=1e-5)
    assert TorchOracle(torch.sin, target=0, dtype=torch.float64).value(POINTS).dtype == np.float64


def test_a_held_array_survives_a_model_that_writes_on_it():
    def model(x, mask):
        mask += 1
        return (x * mask).sum(1)

    mask = np.ones((4, 6), np.float32)
    _, gradients = TorchOracle(model).value_and_gradient(POINTS, mask=mask)
    assert np.all(gradients == 2)
    assert np.all(mask == 1)


def test_pickled_oracles_give_the_same():
    oracle = TorchOracle(nets.normalised(), target=1)
    values, gradients = oracle.value_and_gradient(IMAGES)
    again = pickle.loads(pickle.dumps(oracle)).value_and_gradient(IMAGES)
    np.testing.assert_array_equal(again[0], values)
    np.testing.assert_array_equal(again[1], gradients)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:The .grad attribute:UserWarning")
def test_a_compiled_copy_serves_all_threads(monkeypatch):
    # Traced by dynamo and run without generated code, which takes a C++ compiler and its time.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = nets.normalised()
    oracle = TorchOracle(model, target=1, compile=True)
    expected = TorchOracle(model, target=1).value_and_gradient(IMAGES)[1]
    with ThreadPoolExecutor(4) as pool:
        for _, gradients in pool.map(oracle.value_and_gradient, [IMAGES] * 8):
            np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)
    again = pickle.loads(pickle.dumps(oracle))
    np.testing.assert_allclose(again.value_and_gradient(IMAGES)[1], expected, rtol=1e-5, atol=1e-7)
    assert oracle.describe()["compiled"]


def test_another_process():
    oracle = TorchOracle(nets.mlp(), target=3)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        _, gradients = pool.submit(oracle.value_and_gradient, POINTS).result()
    np.testing.assert_allclose(gradients, oracle.value_and_gradient(POINTS)[1], rtol=1e-6)


def test_description():
    oracle = TorchOracle(nets.mlp(), target=(3,))
    told = oracle.describe()
    assert told["model"] == "Sequential"
    assert told["target"] == [3]
    assert len(told["weights_sha256"]) == 64
    assert (
        told["weights_sha256"] != TorchOracle(nets.mlp(torch.float64), target=3).describe()["weights_sha256"]
    )
    assert repr(oracle) == "TorchOracle(Sequential, target=(3,), device='cpu')"
