"""Oracles of models whose weights stay in their data files, as those of more than 2 GB must."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mollikit_onnx import MeanGates, OnnxOracle, loading

import mollikit as mk
from tests.onnx.test_files import X, external, wide

__all__ = ["external"]


def one_thread() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


@pytest.fixture
def oracle(external: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxOracle:
    monkeypatch.setattr(loading, "LEFT_IN_FILES", 20_000)
    return OnnxOracle(external, target=1, values=True, session_options=one_thread)


@pytest.fixture
def inside() -> OnnxOracle:
    return OnnxOracle(wide(), target=1, values=True, session_options=one_thread)


def test_large_weights_are_in_no_message(oracle: OnnxOracle, inside: OnnxOracle) -> None:
    assert len(oracle._sessions.blueprint.model) < 2000 < len(inside._sessions.blueprint.model)
    assert len(pickle.dumps(oracle)) < 4000


def test_below_the_limit_the_weights_travel_with_the_oracle(
    external: Path, inside: OnnxOracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LEFT_IN_FILES", 30_000)
    oracle = OnnxOracle(external, target=1, session_options=one_thread)
    (external.parent / "weights.bin").unlink()
    np.testing.assert_array_equal(oracle.value_and_gradient(X)[1], inside.value_and_gradient(X)[1])


def test_values_and_gradients_are_those_of_the_model_in_memory(
    oracle: OnnxOracle, inside: OnnxOracle
) -> None:
    for got, wanted in zip(oracle.value_and_gradient(X), inside.value_and_gradient(X), strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(oracle.value(X), inside.value(X))


def test_another_process_reads_the_same_files(
    oracle: OnnxOracle, external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(external.parent)
    relative = OnnxOracle("model.onnx", target=1, values=True, session_options=one_thread)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        monkeypatch.chdir(external.parent.parent)
        _, gradient = pool.submit(relative.value_and_gradient, X).result()
    np.testing.assert_array_equal(gradient, oracle.value_and_gradient(X)[1])


def test_weights_are_mapped_and_replaced(oracle: OnnxOracle, inside: OnnxOracle) -> None:
    assert isinstance(oracle.weights["W"], np.memmap)
    assert list(oracle.weights) == list(inside.weights)
    for name, weight in oracle.weights.items():
        assert not weight.flags.writeable
        np.testing.assert_array_equal(weight, inside.weights[name])
    doubled = {"W": 2 * inside.weights["W"]}
    _, got = oracle.reweighted(doubled).value_and_gradient(X)
    np.testing.assert_array_equal(got, inside.reweighted(doubled).value_and_gradient(X)[1])
    assert np.abs(got - oracle.value_and_gradient(X)[1]).max() > 0.1


def test_weights_are_smoothed(oracle: OnnxOracle, inside: OnnxOracle) -> None:
    noisegrad = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2)))
    got, wanted = (
        noisegrad.estimate(each, X[0], budget=mk.Evaluations(16), rng=0) for each in (oracle, inside)
    )
    np.testing.assert_array_equal(got.gradient, wanted.gradient)


def test_mean_gates(oracle: OnnxOracle, inside: OnnxOracle) -> None:
    gates = MeanGates(mk.Gaussian(0.5), forwards=8)
    got, wanted = (gates.surrogate(each, X[0], rng=0).gradient for each in (oracle, inside))
    np.testing.assert_array_equal(got, wanted)


def test_what_identifies_the_model_is_the_data_too(oracle: OnnxOracle, external: Path) -> None:
    data = external.parent / "weights.bin"
    changed = bytearray(data.read_bytes())
    changed[-1] ^= 1
    data.write_bytes(changed)
    other = OnnxOracle(external, target=1, values=True)
    assert other.describe()["model_sha256"] != oracle.describe()["model_sha256"]


def test_options_of_the_callers_own_cannot_say_where_the_data_are(oracle: OnnxOracle, external: Path) -> None:
    with pytest.raises(ValueError, match="give a function that returns one"):
        OnnxOracle(external, target=1, session_options=one_thread())


def test_data_that_are_gone(oracle: OnnxOracle, external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(loading.ModelFileError, match=r"weights\.bin"):
        oracle.value(X)
    with pytest.raises(loading.ModelFileError, match="put it beside the model"):
        OnnxOracle(external, target=1)


def test_a_model_in_memory_has_no_folder(external: Path) -> None:
    with pytest.raises(loading.ModelFileError, match="give the path of the model file"):
        OnnxOracle(onnx.load(external, load_external_data=False), target=1)


@pytest.mark.parametrize("name", ["scale", "W"])
def test_tensors_of_nodes_and_functions_come_from_the_models_folder_alone(
    name: str, external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LEFT_IN_FILES", 20_000)
    scale = onnx.numpy_helper.from_array(np.full(2, 3, np.float32), name)
    onnx.external_data_helper.set_external_data(scale, "scale.bin")
    (external.parent / "scale.bin").write_bytes(scale.raw_data)
    scale.ClearField("raw_data")
    model = onnx.load(external, load_external_data=False)
    constant = onnx.helper.make_node("Constant", [], ["k"], value=scale)
    product = onnx.helper.make_node("Mul", ["u", "k"], ["v"])
    opsets = list(model.opset_import)
    model.functions.append(
        onnx.helper.make_function("own", "Scaled", ["u"], ["v"], [constant, product], opsets)
    )
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    model.graph.node[-1].output[0] = "u"
    model.graph.node.append(onnx.helper.make_node("Scaled", ["u"], ["w"], domain="own"))
    model.graph.node.extend([constant, onnx.helper.make_node("Mul", ["w", "k"], ["y"])])
    external.write_bytes(model.SerializeToString())
    elsewhere = external.parent.parent
    (elsewhere / "scale.bin").write_bytes(np.full(2, 100, np.float32).tobytes())
    monkeypatch.chdir(elsewhere)
    oracles = OnnxOracle(external, target=1, values=True), OnnxOracle(wide(), target=1, values=True)
    for got, once in zip(*(oracle.value_and_gradient(X) for oracle in oracles), strict=True):
        np.testing.assert_allclose(got, 9 * once, rtol=1e-5, atol=1e-5)
