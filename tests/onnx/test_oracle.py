from __future__ import annotations

import json
import os
import pickle
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mollikit_onnx import OnnxOracle
from mollikit_onnx.errors import UnsupportedOperatorError
from mollikit_onnx.loading import ModelFileError
from mollikit_onnx.providers import ProviderError

from mollikit.oracles import Anchored, ModelFile
from mollikit.testing import assert_rows_close
from tests.onnx import models

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


def one_thread():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def test_value_and_gradient_by_hand():
    target = np.array([0, 4, 2, 2])
    values, gradients = OnnxOracle(models.mlp(), values=True).value_and_gradient(POINTS, target=target)
    expected_values, expected = models.mlp_by_hand(POINTS.astype(np.float64), target)
    assert_rows_close(values, expected_values, np.float32, what="values")
    assert_rows_close(gradients, expected, np.float32, what="gradients")


def test_a_held_target_overrides_the_fixed_one():
    oracle = OnnxOracle(models.mlp(), target=1)
    _, gradients = oracle.value_and_gradient(POINTS, target=np.array([1, 3, 1, 3]))
    _, expected = models.mlp_by_hand(POINTS.astype(np.float64), np.array([1, 3, 1, 3]))
    assert_rows_close(gradients, expected, np.float32, what="gradients")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_points_are_cast_to_the_model(dtype):
    oracle = OnnxOracle(models.mlp(), target=1)
    _, gradients = oracle.value_and_gradient(POINTS.astype(dtype))
    assert gradients.dtype == np.float32
    _, expected = oracle.value_and_gradient(POINTS.astype(dtype).astype(np.float32))
    assert np.array_equal(gradients, expected)


def test_double_precision_model():
    _, gradients = OnnxOracle(models.mlp(dtype=np.float64), target=1).value_and_gradient(POINTS)
    assert gradients.dtype == np.float64


def test_values_are_not_computed_unless_asked_for():
    values, _ = OnnxOracle(models.mlp(), target=1).value_and_gradient(POINTS)
    assert values is None


def test_predict_and_value():
    oracle = OnnxOracle(models.mlp(), target=2)
    outputs = oracle.predict(POINTS)
    assert outputs.shape == (4, 5)
    for k in range(5):
        expected, _ = models.mlp_by_hand(POINTS.astype(np.float64), np.full(4, k))
        assert_rows_close(outputs[:, k], expected, np.float32, what=f"output {k}")
    assert np.array_equal(oracle.value(POINTS), outputs[:, 2])
    assert np.array_equal(
        oracle.value(POINTS, target=np.array([3, 0, 1, 4])), outputs[range(4), [3, 0, 1, 4]]
    )
    assert oracle.predict(POINTS[:0]).shape == (0, 5)


def test_top_is_resolved_on_the_clean_input():
    oracle = OnnxOracle(models.mlp(), target="top")
    assert isinstance(oracle, Anchored)
    assert isinstance(oracle, ModelFile)
    with pytest.raises(ValueError, match=r"call oracle\.anchored\(inputs\)"):
        oracle.value_and_gradient(POINTS)
    tops = oracle.predict(POINTS).argmax(axis=1)
    assert len(set(tops)) > 1
    for point, top in zip(POINTS, tops, strict=True):
        anchored = oracle.anchored(point)
        assert anchored.describe()["target"] == [top]
        # Fixed for good, whatever the point.
        expected = oracle.value_and_gradient(POINTS, target=np.full(4, top))[1]
        assert np.array_equal(anchored.value_and_gradient(POINTS)[1], expected)
    assert oracle.describe()["target"] == "top"


def test_top_with_several_inputs_and_held_ones():
    oracle = OnnxOracle(models.two_inputs(), target="top")
    inputs = {"a": np.zeros(3), "b": np.array([1.0, 2, 3, 4])}
    assert oracle.anchored(inputs, mask=np.array([0, 0, 1, 0])).describe()["target"] == [2]
    assert oracle.anchored(inputs, mask=np.array([0, 1, 0, 0])).describe()["target"] == [1]


def test_anchoring_shares_the_sessions():
    oracle = OnnxOracle(models.mlp(), target="top")
    assert oracle.anchored(POINTS[0])._sessions is oracle._sessions
    fixed = OnnxOracle(models.mlp(), target=0)
    assert fixed.anchored(POINTS[0]) is fixed


@pytest.mark.parametrize("shape", [["n", 3, 2], ["n", "h", "w"], ["n", 3, "w"]])
def test_outputs_of_higher_rank(shape):
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    oracle = OnnxOracle(models.squares(shape), target=(2, 1), values=True)
    values, gradients = oracle.value_and_gradient(x)
    expected = np.zeros_like(x)
    expected[:, 2, 1] = 2 * x[:, 2, 1]
    assert np.array_equal(gradients, expected)
    assert np.array_equal(values, x[:, 2, 1] ** 2)
    assert np.array_equal(oracle.value(x), values)
    by_row = np.array([[0, 0], [1, 1], [2, 0], [0, 1]])
    _, gradients = oracle.value_and_gradient(x, target=by_row)
    assert [tuple(k) for k in np.argwhere(gradients)[:, 1:]] == [tuple(k) for k in by_row]
    top = OnnxOracle(models.squares(shape), target="top").anchored(x[0]).describe()["target"]
    assert tuple(top) == np.unravel_index(np.argmax(x[0] ** 2), (3, 2))


@pytest.mark.parametrize("shape", [["n"], ["n", 1], ["n", 1, 1]])
def test_a_scalar_output_needs_no_target(shape):
    x = np.arange(1.0, 4.0, dtype=np.float32).reshape([3] + [1] * (len(shape) - 1))
    values, gradients = OnnxOracle(models.squares(shape), values=True).value_and_gradient(x)
    assert np.array_equal(gradients, 2 * x)
    assert values.tolist() == [1, 4, 9]


def test_an_open_axis_is_checked_when_it_runs():
    oracle = OnnxOracle(models.squares(["n", "classes"]), target=7)
    assert oracle.value_and_gradient(np.ones((2, 8)))[1].sum() == 4
    with pytest.raises(Exception, match="indice = 7"):
        oracle.value_and_gradient(np.ones((2, 7)))


def test_without_a_target_there_are_outputs_alone():
    oracle = OnnxOracle(models.mlp())
    assert oracle.predict(POINTS).shape == (4, 5)
    for call in (oracle.value, oracle.value_and_gradient):
        with pytest.raises(ValueError, match="has 5 elements a row: choose one by target="):
            call(POINTS)


def test_an_output_of_unknown_rank():
    model = models.custom_operator()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ValueError, match=r"how many axes its output 'y' has.*infer_shapes"):
        OnnxOracle(model, target=0)
    with pytest.raises(ValueError, match="how many axes"):
        OnnxOracle(model).value_and_gradient(POINTS[:, :3], target=np.zeros(4, int))
    inferred = models.squares()
    inferred.graph.output[0].type.tensor_type.ClearField("shape")
    assert OnnxOracle(inferred, target=2).value_and_gradient(np.ones((2, 3)))[1].sum() == 4


def test_a_single_row_model_equals_the_batched_one():
    row_by_row, batched = (OnnxOracle(models.cnn(batch=batch), target=1) for batch in (1, "n"))
    assert row_by_row.describe()["row_by_row"]
    assert not batched.describe()["row_by_row"]
    x = np.random.default_rng(0).standard_normal((5, 2, 8, 8)).astype(np.float32)
    expected = batched.value_and_gradient(x)[1]
    assert_rows_close(row_by_row.value_and_gradient(x)[1], expected, np.float32, what="gradients")
    assert_rows_close(row_by_row.predict(x), batched.predict(x), np.float32, what="outputs")


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (5, ValueError, r"target 5 is out of range: output 'logits' has 5 classes"),
        (-1, ValueError, r"target -1 is out of range: output 'logits' has 5 classes"),
        (2**70, ValueError, "out of range"),
        ((1, 2), ValueError, r"2 indices.*1 axes"),
        (1.0, TypeError, "target is an int"),
        (True, TypeError, "target is an int"),
        ("tiger", TypeError, "target is an int.*'tiger'"),
    ],
)
def test_bad_targets_are_refused_at_once(target, error, message):
    with pytest.raises(error, match=message):
        OnnxOracle(models.mlp(), target=target)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.array([0, 1, 2, 5]), ValueError, "target 5 is out of range"),
        (np.array([0, 1, -2, 3]), ValueError, "target -2 is out of range"),
        (np.array([0, 1]), ValueError, r"shape \(4,\) and got \(2,\)"),
        (np.zeros((4, 2), int), ValueError, r"shape \(4,\) and got \(4, 2\)"),
        (np.zeros(4), TypeError, "takes integers and got an array of float64"),
    ],
)
def test_bad_targets_by_row(target, error, message):
    with pytest.raises(error, match=message):
        OnnxOracle(models.mlp()).value_and_gradient(POINTS, target=target)


MASK = np.ones((4, 4), np.int64)
TWO = {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("points", "held", "error", "message"),
    [
        (TWO, {}, ValueError, r"no array was given for the model's input 'mask' \(int64\)"),
        ({"a": TWO["a"]}, {"mask": MASK}, ValueError, "input 'b'"),
        (TWO, {"mask": MASK, "extra": MASK}, ValueError, r"no input 'extra' to hold; it has \['mask'\]"),
        ({**TWO, "c": MASK}, {"mask": MASK}, ValueError, "no input 'c'"),
        (TWO["a"], {"mask": MASK}, ValueError, r"mapping of arrays by input name.*\['a', 'b'\]"),
        (TWO, {"mask": MASK[:, :2]}, ValueError, r"'mask' takes a batch of shape \(m, 4\) and got \(4, 2\)"),
        (TWO, {"mask": MASK[0]}, ValueError, r"and got \(4,\): add the batch axis"),
        (TWO, {"mask": MASK[:3]}, ValueError, "one row for each point"),
        (TWO, {"mask": MASK.astype(float)}, TypeError, "'mask' takes int64 and got an array of float64"),
        (TWO, {"mask": np.full((4, 4), 2**63, np.uint64)}, TypeError, "beyond its range"),
        ({**TWO, "a": np.ones((4, 3), int)}, {"mask": MASK}, TypeError, "'a' takes float32 and got .* int64"),
        ({**TWO, "a": np.ones((4, 3), complex)}, {"mask": MASK}, TypeError, "'a' takes float32"),
        ({**TWO, "a": np.ones((3, 4))}, {"mask": MASK}, ValueError, r"\(m, 3\) and got \(3, 4\)"),
        ({**TWO, "a": np.float32(1)}, {"mask": MASK}, ValueError, r"got \(\)"),
    ],
)
def test_bad_batches(points, held, error, message):
    oracle = OnnxOracle(models.two_inputs(), target=0)
    for call in (oracle.value_and_gradient, oracle.predict):
        with pytest.raises(error, match=message):
            call(points, **held)


def test_small_integers_are_cast_for_held_inputs():
    oracle = OnnxOracle(models.two_inputs(), target=0)
    _, expected = oracle.value_and_gradient(TWO, mask=MASK)
    _, gradients = oracle.value_and_gradient(TWO, mask=MASK.astype(np.uint8))
    assert np.array_equal(gradients["b"], expected["b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wrt": ["image"]}, r"no input 'image'; its inputs are \['a', 'b', 'mask'\]"),
        ({"wrt": ["mask"]}, r"'mask' is of int64: choose among \('a', 'b'\)"),
        ({"wrt": []}, "names no input"),
        ({"wrt": "a"}, r"write \('a',\)"),
        ({"output": "z"}, r"no output 'z' of floats: choose among \['y'\]"),
    ],
)
def test_bad_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        OnnxOracle(models.two_inputs(), target=0, **arguments)


def test_an_output_is_chosen_among_several():
    model = models.mlp()
    model.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["n", 16]))
    with pytest.raises(ValueError, match=r"2 outputs of floats, \['logits', 'h'\]: choose one by output="):
        OnnxOracle(model, target=0)
    assert OnnxOracle(model, target=9, output="h").predict(POINTS).shape == (4, 16)
    with pytest.raises(ValueError, match="5 classes"):
        OnnxOracle(model, target=9, output="logits")


def test_models_that_cannot_be_used():
    with pytest.raises(ModelFileError, match=r"no input of float16.*'ids' \(int64\)"):
        OnnxOracle(models.without_floats())
    with pytest.raises(ModelFileError, match="fixed at 8: export the model with a dynamic batch axis"):
        OnnxOracle(models.mlp(batch=8), target=0)
    with pytest.raises(ModelFileError, match="no file"):
        OnnxOracle("nowhere.onnx")
    with pytest.raises(ProviderError, match="no execution provider 'Abacus'"):
        OnnxOracle(models.mlp(), target=0, providers=["Abacus"])


def test_an_input_named_as_the_targets_by_row():
    model = models.model(
        [onnx.helper.make_node("Mul", ["x", "target"], ["y"])],
        [("x", onnx.TensorProto.FLOAT, ["n"]), ("target", onnx.TensorProto.FLOAT, ["n"])],
        [("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    with pytest.raises(ModelFileError, match=r"input named 'target'.*rename it"):
        OnnxOracle(model)


def test_an_operator_without_a_gradient_leaves_the_values():
    oracle = OnnxOracle(models.custom_operator(), target=0)
    with pytest.raises(UnsupportedOperatorError, match="Frobnicate"):
        oracle.value_and_gradient(np.ones((2, 3)))
    with pytest.raises(ModelFileError, match="Frobnicate"):
        oracle.predict(np.ones((2, 3)))


def test_models_newer_than_the_runtime():
    model = models.mlp()
    newest = onnx.defs.onnx_opset_version()
    model.opset_import[0].version, model.ir_version = newest, onnx.IR_VERSION
    oracle = OnnxOracle(model, target=2, values=True)
    values, gradients = oracle.value_and_gradient(POINTS)
    _, expected = models.mlp_by_hand(POINTS.astype(np.float64), np.full(4, 2))
    assert_rows_close(gradients, expected, np.float32, what="gradients")
    assert_rows_close(oracle.predict(POINTS)[:, 2], values, np.float32, what="values")


def test_no_memory_is_a_memory_error():
    oracle = OnnxOracle(models.expanding())
    with pytest.raises(MemoryError, match="no memory for a batch of 3"):
        oracle.predict(np.ones((3, 1)))


def test_the_callers_model_and_options_are_left_alone():
    model, options = models.cnn(), one_thread()
    before = model.SerializeToString()
    oracle = OnnxOracle(model, target=1, session_options=options, values=True)
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype(np.float32)
    first = oracle.value_and_gradient(x)
    assert model.SerializeToString() == before
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level == ort.SessionOptions().graph_optimization_level
    del model.graph.node[:]
    again = oracle.value_and_gradient(x)
    assert np.array_equal(first[1], again[1])


def test_dead_nodes_are_not_computed():
    """The gradient of a logit needs neither the logits nor the last bias."""
    oracle = OnnxOracle(models.mlp(), target=1)
    assert [output.name for output in oracle._sessions.gradient.get_outputs()] == ["x.gradient"]
    with_values = OnnxOracle(models.mlp(), target=1, values=True)
    assert len(with_values._sessions.gradient.get_outputs()) == 2


def test_sessions_are_built_once_by_many_threads():
    oracle = OnnxOracle(models.mlp(), target="top")
    with ThreadPoolExecutor(12) as pool:
        anchored = list(pool.map(oracle.anchored, np.repeat(POINTS, 6, axis=0)))
        sessions = set(pool.map(lambda one: id(one._sessions.gradient), anchored))
    assert len(sessions) == 1


def test_pickled_oracles_share_their_sessions():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread, values=True)
    content = pickle.dumps(oracle)
    first, second = pickle.loads(content), pickle.loads(content)
    assert first._sessions is second._sessions
    other = pickle.loads(pickle.dumps(OnnxOracle(models.mlp(classes=6), target=3)))
    assert other._sessions is not first._sessions
    expected = oracle.value_and_gradient(POINTS)
    for got, want in zip(first.value_and_gradient(POINTS), expected, strict=True):
        assert np.array_equal(got, want)


def test_a_forked_process_builds_sessions_of_its_own(monkeypatch):
    content = pickle.dumps(OnnxOracle(models.mlp(), target=3))
    inherited = pickle.loads(content)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    own = pickle.loads(content)
    assert own._sessions is not inherited._sessions
    assert own._sessions is pickle.loads(content)._sessions


def test_another_process_gives_the_same_bits():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread)
    _, expected = oracle.value_and_gradient(POINTS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(oracle.value_and_gradient, [POINTS, POINTS]))
    for _, gradients in results:
        assert np.array_equal(gradients, expected)


def test_session_options_that_cannot_travel_say_so():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread())
    with pytest.raises(TypeError, match="module-level function"):
        pickle.dumps(oracle)


def test_description_and_repr():
    oracle = OnnxOracle(models.mlp(), target=3)
    description = json.loads(json.dumps(oracle.describe()))
    assert re.fullmatch("[0-9a-f]{64}", description["model_sha256"])
    assert description["producer"] == "mollikit tests"
    assert description["opsets"] == {"ai.onnx": 18}
    assert description["target"] == [3]
    assert description["providers"] == ["CPUExecutionProvider"]
    assert description["onnxruntime"] == ort.__version__
    assert repr(oracle).startswith("OnnxOracle(d logits[3] / d x[6], sha256=")
    assert "row by row" in repr(OnnxOracle(models.mlp(batch=1), target="top"))
    assert oracle.input_shapes == {"x": (6,)}
    assert OnnxOracle(models.squares(["n", "c", 3]), target=(0, 0)).input_shapes == {"x": (None, 3)}


def test_the_digest_is_that_of_the_file(tmp_path):
    from hashlib import sha256

    path = tmp_path / "model.onnx"
    onnx.save(models.mlp(), path)
    assert OnnxOracle(path, target=0).describe()["model_sha256"] == sha256(path.read_bytes()).hexdigest()
