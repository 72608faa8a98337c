"""Models of 16 and 64 bits: as they are where ONNX Runtime has kernels, in wider floats by choice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from mollikit_onnx import ModelError, OnnxOracle, vjp, widened
from mollikit_onnx.loading import ModelFileError
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.onnx import models
from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime

HALVES = [TensorProto.FLOAT16, TensorProto.BFLOAT16]


def narrowed(model: ModelProto, kind: int) -> ModelProto:
    """The float32 model in another type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = kind
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind
    return model


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("make", [models.mlp, models.cnn])
def test_halves_in_float32(make, kind: int) -> None:
    """The gradient of the rounded weights, to float32's precision."""
    half = narrowed(make(), kind)
    before = half.SerializeToString()
    wide = widened(half)
    assert half.SerializeToString() == before
    onnx.checker.check_model(wide, full_check=True)
    oracle = OnnxOracle(wide, target=1)
    (shape,) = oracle.input_shapes.values()
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    _, got = oracle.value_and_gradient(x)
    exact = widened(half, np.float64)
    name, g = (
        exact.graph.input[0].name,
        np.zeros((2, exact.graph.output[0].type.tensor_type.shape.dim[1].dim_value)),
    )
    g[:, 1] = 1
    feeds = {name: x.astype(np.float64), "logits.cotangent": g}
    (expected,) = evaluator(vjp(exact, [name], ["logits"])).run([f"{name}.gradient"], feeds)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_half_as_it_is_where_there_are_kernels() -> None:
    """Eleven bits, some dozens of sums."""
    half = narrowed(models.mlp(), TensorProto.FLOAT16)
    oracle = OnnxOracle(half, target=1, values=True)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float16)
    values, got = oracle.value_and_gradient(x)
    assert values.dtype == got.dtype == np.float16
    wanted_values, wanted = OnnxOracle(widened(half), target=1, values=True).value_and_gradient(x)
    np.testing.assert_allclose(values, wanted_values, atol=1e-2)
    np.testing.assert_allclose(got, wanted, atol=1e-2)


def test_a_missing_kernel_says_what_to_do() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"])]
    ports = [("x", TensorProto.DOUBLE, ["n", 3])], [("y", TensorProto.DOUBLE, ["n", 3])]
    with pytest.raises(ModelFileError, match=r"NOT_IMPLEMENTED.*mollikit_onnx\.widened"):
        OnnxOracle(models.model(nodes, *ports, opset=20), target=1).predict(np.ones((2, 3)))


def test_bfloat16_inputs_are_refused_with_the_mend() -> None:
    with pytest.raises(ModelFileError, match=r"bfloat16 to float32 with mollikit_onnx\.widened"):
        OnnxOracle(narrowed(models.mlp(), TensorProto.BFLOAT16), target=1)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_integers_and_booleans_beside(kind: int) -> None:
    """Side inputs of other types, several inputs and outputs, in every width."""
    model = narrowed(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
        m (float[n,3] a, float[n,3] b, int64[n] rows, bool[n,3] mask)
            => (float[n,3] y, float[n,3] z, int64[n] k) {
            g = Gather(a, rows)
            p = Mul(g, b)
            y = Where(mask, p, a)
            z = Add(p, a)
            k = Identity(rows)
        }"""),
        kind,
    )
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    rng = np.random.default_rng(0)
    a, b, gy, gz = (rng.integers(-4, 5, (2, 3)).astype(dtype) for _ in range(4))
    rows, mask = np.array([1, 1]), rng.random((2, 3)) < 0.5
    feeds = {"a": a, "b": b, "rows": rows, "mask": mask, "y.cotangent": gy, "z.cotangent": gz}
    _, _, k, of_a, of_b = run_onnxruntime(vjp(model, ["a", "b"], ["y", "z"]), feeds)
    through = np.where(mask, gy, 0) + gz
    np.testing.assert_array_equal(k, rows)
    np.testing.assert_array_equal(of_b, through * a[rows])
    gathered = np.stack([np.zeros(3), (through * b).sum(0)])
    np.testing.assert_array_equal(of_a, gathered + np.where(mask, 0, gy) + gz)
    assert of_a.dtype == of_b.dtype == dtype


def test_operators_that_make_float32_by_default() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
        m (float[n] x) => (float[n] y) {
            shape = Shape(x)
            z = ConstantOfShape(shape)
            w = HannWindow(size)
            c = Constant<value_floats = [1.0, 2.0]>()
            a = Add(x, z)
            b = Mul(a, w)
            y = Add(b, c)
        }""")
    model.graph.initializer.append(numpy_helper.from_array(np.array(2), "size"))
    x = np.array([0.1, 0.2])
    (wide,) = evaluator(widened(model, np.float64)).run(None, {"x": x})
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, x * np.array([0, 1]) + [1, 2], rtol=1e-15)


def test_what_cannot_be_widened() -> None:
    with pytest.raises(ModelError, match="float32 or float64, not to float16"):
        widened(models.mlp(), np.float16)
