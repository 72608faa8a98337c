from __future__ import annotations

import numpy as np
import onnx
import pytest
from mollikit_onnx import OnnxOracle
from mollikit_onnx.errors import UnsupportedOperatorError
from mollikit_onnx.loading import ModelFileError
from mollikit_onnx.runtime.providers import ProviderError

import mollikit as mk
from tests.onnx import models

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


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


def test_models_that_cannot_be_used():
    with pytest.raises(ModelFileError, match=r"no input of float16.*'ids' \(int64\)"):
        OnnxOracle(models.without_floats())
    with pytest.raises(ModelFileError, match="fixed at 8: export the model with a dynamic batch axis"):
        OnnxOracle(models.mlp(batch=8), target=0)
    with pytest.raises(ModelFileError, match="no file"):
        OnnxOracle("nowhere.onnx")
    with pytest.raises(ProviderError, match="no execution provider 'Abacus'"):
        OnnxOracle(models.mlp(), target=0, providers=["Abacus"])


def test_models_that_are_none():
    strange = models.mlp()
    strange.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelFileError, match="'x' is of the unknown type 99"):
        OnnxOracle(strange)
    node = onnx.helper.make_node("F", ["x"], ["y"], domain="f")
    opsets = [onnx.helper.make_opsetid("f", 1)]
    itself = models.squares()
    itself.graph.node[0].CopyFrom(node)
    itself.graph.output[0].type.tensor_type.ClearField("shape")
    itself.opset_import.extend(opsets)
    itself.functions.append(onnx.helper.make_function("f", "F", ["x"], ["y"], [node], opsets))
    with pytest.raises(ModelFileError, match="the model is not valid: Cycle"):
        OnnxOracle(itself)


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


def test_no_memory_is_a_memory_error():
    oracle = OnnxOracle(models.expanding())
    with pytest.raises(MemoryError, match="no memory for a batch of 3"):
        oracle.predict(np.ones((3, 1)))


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float", "double"])
def test_a_target_beyond_an_open_output_is_told_by_what_a_run_gives(dtype, resident):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> '
        f"m ({dtype}[n, q] x) => ({dtype}[n, k] y) {{ y = Mul(x, x) }}"
    )
    points = np.array([[1, 2, 3], [4, 5, 6]], {"float": "f4", "double": "f8"}.get(dtype, "f2"))
    oracle = OnnxOracle(model, values=True, resident=resident)
    values, gradients = oracle.value_and_gradient(points, target=np.array([2, 0]))
    assert values.tolist() == [9, 16]
    assert gradients.tolist() == [[0, 0, 6], [8, 0, 0]]
    smooth = mk.Pathwise(mk.Gaussian(0.1))
    for call in (
        lambda: oracle.value_and_gradient(points, target=np.array([2, 3])),
        lambda: oracle.values_and_gradients(points, [0, 3]),
        lambda: OnnxOracle(model, target=3).value_and_gradient(points),
        lambda: smooth.estimate(oracle, points[0], held={"target": 3}, budget=mk.Evaluations(64), rng=0),
    ):
        with pytest.raises(ValueError, match="target 3 is out of range: output 'y' has 3 classes"):
            call()
