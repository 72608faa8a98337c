"""Smoothing of an ONNX model's weights, which enter a second session as inputs."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from mollikit_onnx import OnnxOracle
from mollikit_onnx.runtime.weights import without_defaults
from onnx import TensorProto, helper, numpy_helper

import mollikit as mk
from mollikit.testing import OracleConformance, assert_rows_close
from tests.core.test_determinism import bits
from tests.onnx import models

LAW = mk.Gaussian(mk.OfMagnitude(0.2))
ROWS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


def normalised(opset=17, ir_version=8):
    """image (n, 2, 8, 8) -> logits (n, 4): Conv, BatchNormalization, Clip, Resize, MatMul by a Constant."""
    rng = np.random.default_rng(3)

    def drawn(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    weights = {
        "K": drawn(6, 2, 3, 3) / 3,
        "k": drawn(6),
        "gamma": drawn(6),
        "beta": drawn(6),
        "mean": drawn(6),
        "variance": np.abs(drawn(6)) + 0.5,
        "low": np.float32(-3),
        "high": np.float32(3),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "half": np.float32(0.5),
        "bias": drawn(4),
        "unused": drawn(3),
    }
    head = numpy_helper.from_array(drawn(6, 4) / 2, "value")
    nodes = [
        helper.make_node("Conv", ["image", "K", "k"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]),
        helper.make_node("Tanh", ["n"], ["t"]),
        helper.make_node("Clip", ["t", "low", "high"], ["l"]),
        helper.make_node("Resize", ["l", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Constant", [], ["head"], value=head),
        helper.make_node("MatMul", ["f", "head"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["h"]),
        helper.make_node("Add", ["h", "bias"], ["logits"]),
    ]
    made = models.model(
        nodes,
        [("image", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [("logits", TensorProto.FLOAT, ["n", 4])],
        weights,
        opset=opset,
        ir_version=ir_version,
    )
    if ir_version < 4:  # where every initializer is an input too
        for name, array in weights.items():
            made.graph.input.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            )
    return made


class TestNormalised(OracleConformance):
    """BatchNormalization behind a convolution becomes part of its weights, in the graph."""

    def oracle(self):
        return OnnxOracle(normalised(), values=True)

    def points(self, m, rng):
        return rng.standard_normal((m, 2, 8, 8)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class TestOfAnOldFile(TestNormalised):
    """IR 3, where initializers are inputs, of an operator set that is converted."""

    def oracle(self):
        return OnnxOracle(normalised(opset=13, ir_version=3), values=True)


def baked(model, weights):
    """The model with other initializers and Constants."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    for node in changed.graph.node:
        if node.op_type == "Constant" and node.output[0] in weights:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(weights[node.output[0]], "value"))
    return changed


def test_other_weights_are_those_of_a_model_that_has_them():
    rng = np.random.default_rng(4)
    images = rng.standard_normal((3, 2, 8, 8)).astype(np.float32)
    oracle = OnnxOracle(normalised(), target=2, values=True)
    weights = {n: w + 0.1 * rng.standard_normal(w.shape).astype(w.dtype) for n, w in oracle.weights.items()}
    expected = OnnxOracle(baked(normalised(), weights), target=2, values=True).value_and_gradient(images)
    other = oracle.reweighted(weights)
    for got, want in zip(other.value_and_gradient(images), expected, strict=True):
        assert_rows_close(got, want, np.float32, what="with weights as inputs")
    np.testing.assert_allclose(other.value(images), expected[0], rtol=1e-5)


def test_which_initializers_are_weights():
    weights = OnnxOracle(normalised(), target=0).weights
    assert set(weights) == {"K", "k", "gamma", "beta", "head", "bias"}
    assert not any(array.flags.writeable for array in weights.values())


def test_weights_of_another_output_are_left_out():
    model = models.mlp()
    model.graph.node.append(helper.make_node("Mul", ["h", "factor"], ["other"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.float32), "factor"))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 16]))
    assert set(OnnxOracle(model, output="logits", target=0).weights) == {"W1", "b1", "W2", "b2"}
    assert set(OnnxOracle(model, output="other", target=0).weights) == {"W1", "b1", "factor"}


def test_smoothing_of_inputs_keeps_the_constant_session():
    oracle = OnnxOracle(models.mlp(), target=1)
    mk.Pathwise(mk.Gaussian(0.1)).estimate(oracle, ROWS[0], budget=mk.Evaluations(64), rng=0)
    assert not oracle._sessions._overriding
    constant = oracle._sessions.gradient
    mk.Pathwise(weights=LAW).estimate(oracle, ROWS[0], budget=mk.Evaluations(16), rng=0)
    assert oracle._sessions.gradient is constant
    assert [port.name for port in constant.get_inputs()] == ["x", "mollikit.coordinates"]


def test_only_the_weights_that_move_become_inputs_and_a_session_is_built_once():
    oracle = OnnxOracle(models.mlp(), target=1)
    smooth = mk.Pathwise(weights={"W*": LAW})
    with ThreadPoolExecutor(6) as executor:
        smooth.estimate(oracle, ROWS[0], budget=mk.Evaluations(64), rng=0, executor=executor)
    smooth.estimate(oracle, ROWS[1], budget=mk.Evaluations(64), rng=0)
    ((names, sessions),) = oracle._sessions._overriding.items()
    assert names == ("W1", "W2")
    inputs = {port.name for port in sessions.gradient.get_inputs()}
    assert inputs == {"x", "mollikit.coordinates", "W1", "W2"}


def test_sessions_of_few_sets_of_weights_are_kept():
    oracle = OnnxOracle(models.mlp(), target=1)
    doubled = {name: 2 * array for name, array in oracle.weights.items()}
    in_use = oracle.reweighted({"W1": doubled["W1"]})
    expected = in_use.value_and_gradient(ROWS)[1]
    for name in ("b1", "W2", "b2"):
        oracle.reweighted({name: doubled[name]}).value_and_gradient(ROWS)
    assert list(oracle._sessions._overriding) == [("W2",), ("b2",)]
    kept = oracle._sessions.overriding(("W2",))
    assert list(oracle._sessions._overriding.items())[-1] == (("W2",), kept)
    assert np.array_equal(in_use.value_and_gradient(ROWS)[1], expected)
    assert np.array_equal(oracle.reweighted({"W1": doubled["W1"]}).value_and_gradient(ROWS)[1], expected)


def test_the_second_session_holds_no_weights_of_its_own():
    model = normalised()
    size = model.ByteSize()
    without_defaults(model, {"K", "k"})
    left = {tensor.name for tensor in model.graph.initializer}
    assert "K" not in left
    assert "bias" in left
    assert model.ByteSize() < size - 6 * 2 * 9 * 4


@pytest.mark.parametrize("inputs", [None, mk.Gaussian(0.3)], ids=["weights", "both"])
def test_threads_and_pickling_do_not_change_the_bits(inputs):
    smooth, budget = mk.Pathwise(inputs, weights=LAW, block=16), mk.Evaluations(160)
    oracle = OnnxOracle(models.mlp(), target=1, values=True, session_options=one_thread)
    expected = bits(smooth.estimate(oracle, ROWS[0], budget=budget, rng=3))
    with ThreadPoolExecutor(6) as executor:
        assert bits(smooth.estimate(oracle, ROWS[0], budget=budget, rng=3, executor=executor)) == expected
    sent = pickle.loads(pickle.dumps(oracle))
    assert bits(smooth.estimate(sent, ROWS[0], budget=budget, rng=3)) == expected
    other = oracle.reweighted({"b1": np.zeros(16, np.float32)})
    again = pickle.loads(pickle.dumps(other))
    assert np.array_equal(again.value_and_gradient(ROWS)[1], other.value_and_gradient(ROWS)[1])


def one_thread():
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def test_a_batch_of_a_single_row():
    oracle = OnnxOracle(models.mlp(batch=1), target=1, values=True)
    several = OnnxOracle(models.mlp(), target=1, values=True)
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3), weights=LAW), mk.Evaluations(64)
    one, many = (smooth.estimate(o, ROWS[0], budget=budget, rng=0) for o in (oracle, several))
    np.testing.assert_allclose(one.gradient, many.gradient, rtol=1e-5, atol=1e-6)


def test_the_callers_model_is_left_alone():
    model = normalised()
    before = model.SerializeToString()
    oracle = OnnxOracle(model, target="top")
    image = np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)
    mk.Pathwise(weights=LAW).estimate(oracle, image, budget=mk.Evaluations(8), rng=0)
    assert model.SerializeToString() == before


def test_a_model_without_weights():
    with pytest.raises(ValueError, match="shows no weights of floats"):
        mk.Pathwise(weights=LAW).estimate(
            OnnxOracle(models.squares(), target=1), np.ones(3, np.float32), budget=mk.Evaluations(8)
        )
