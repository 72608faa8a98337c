from __future__ import annotations

import json
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mollikit_onnx import OnnxOracle

from mollikit.oracles import Anchored, ModelFile
from mollikit.testing import assert_rows_close
from tests.onnx import models

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


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
    with pytest.raises(ValueError, match="target 7 is out of range"):
        oracle.value_and_gradient(np.ones((2, 7)))


def test_a_single_row_model_equals_the_batched_one():
    row_by_row, batched = (OnnxOracle(models.cnn(batch=batch), target=1) for batch in (1, "n"))
    assert row_by_row.describe()["row_by_row"]
    assert not batched.describe()["row_by_row"]
    x = np.random.default_rng(0).standard_normal((5, 2, 8, 8)).astype(np.float32)
    expected = batched.value_and_gradient(x)[1]
    assert_rows_close(row_by_row.value_and_gradient(x)[1], expected, np.float32, what="gradients")
    assert_rows_close(row_by_row.predict(x), batched.predict(x), np.float32, what="outputs")


def test_small_integers_are_cast_for_held_inputs():
    oracle = OnnxOracle(models.two_inputs(), target=0)
    points, mask = {"a": np.ones((4, 3)), "b": np.ones((4, 4))}, np.ones((4, 4), np.int64)
    _, expected = oracle.value_and_gradient(points, mask=mask)
    _, gradients = oracle.value_and_gradient(points, mask=mask.astype(np.uint8))
    assert np.array_equal(gradients["b"], expected["b"])


def test_an_output_is_chosen_among_several():
    model = models.mlp()
    model.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["n", 16]))
    with pytest.raises(ValueError, match=r"2 outputs of floats, \['logits', 'h'\]: choose one by output="):
        OnnxOracle(model, target=0)
    assert OnnxOracle(model, target=9, output="h").predict(POINTS).shape == (4, 16)
    with pytest.raises(ValueError, match="5 classes"):
        OnnxOracle(model, target=9, output="logits")


@pytest.mark.parametrize(
    ("opset", "ir_version"), [(9, 4), (11, 6), (18, 9), (onnx.defs.onnx_opset_version(), onnx.IR_VERSION)]
)
def test_versions_older_and_newer_than_the_runtime(opset, ir_version):
    model = models.mlp()
    model.opset_import[0].version, model.ir_version = opset, ir_version
    oracle = OnnxOracle(model, target=2, values=True)
    values, gradients = oracle.value_and_gradient(POINTS)
    _, expected = models.mlp_by_hand(POINTS.astype(np.float64), np.full(4, 2))
    assert_rows_close(gradients, expected, np.float32, what="gradients")
    assert_rows_close(oracle.predict(POINTS)[:, 2], values, np.float32, what="values")


def test_weights_listed_as_inputs_are_not_inputs():
    """As models of IR version 3 must."""
    model = models.mlp()
    model.ir_version, model.opset_import[0].version = 3, 9
    for weight in model.graph.initializer:
        port = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(port)
    oracle = OnnxOracle(model, target=2)
    assert oracle.input_shapes == {"x": (6,)}
    _, expected = models.mlp_by_hand(POINTS.astype(np.float64), np.full(4, 2))
    assert_rows_close(oracle.value_and_gradient(POINTS)[1], expected, np.float32, what="gradients")


def test_dead_nodes_are_not_computed():
    """The gradient of a logit needs neither the logits nor the last bias."""
    oracle = OnnxOracle(models.mlp(), target=1)
    assert [output.name for output in oracle._sessions.gradient.get_outputs()] == ["x.gradient"]
    with_values = OnnxOracle(models.mlp(), target=1, values=True)
    assert len(with_values._sessions.gradient.get_outputs()) == 2


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
