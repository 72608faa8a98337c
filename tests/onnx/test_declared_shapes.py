"""Shapes that a file declares and that are no longer true, as tools leave them that change a graph."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import OnnxOracle, vjp
from mollikit_onnx.loading import ModelFileError
from mollikit_onnx.normal_form.normal_form import normal_form
from onnx import ModelProto, TensorProto, helper

POINTS = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)


def network(output=("n", 3), **declared) -> ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 5)),
        "b": rng.standard_normal((1, 5)),
        "v": rng.standard_normal((5, 3)),
    }
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        m (float[n, 4] x) => (float[n, 3] y)
        { a = MatMul(x, w)  h = Add(a, b)  s = Softmax(h)  t = Mul(s, a)  y = MatMul(t, v) }"""
    )
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, output))
    for name, shape in declared.items():
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


@pytest.mark.parametrize(
    "declared",
    [
        {"a": ["n", 7]},
        {"h": ["n", 7], "s": ["n", 7]},
        {"s": ["n", 5, 2]},
        {"a": [1, 5]},  # once exported for one row
        {"a": [1, 5], "h": [1, 5], "s": [1, 5], "t": [1, 5]},
        {"t": [8, 5]},
    ],
)
def test_intermediate_shapes_are_hints(declared) -> None:
    values, gradients = OnnxOracle(network(**declared), target=1, values=True).value_and_gradient(POINTS)
    expected_values, expected = OnnxOracle(network(), target=1, values=True).value_and_gradient(POINTS)
    assert np.array_equal(values, expected_values)
    assert np.array_equal(gradients, expected)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_batch_of_an_output_is_a_hint(batch) -> None:
    _, gradients = OnnxOracle(network((batch, 3)), target=1).value_and_gradient(POINTS)
    assert np.array_equal(gradients, OnnxOracle(network(), target=1).value_and_gradient(POINTS)[1])
    (y, *_) = vjp(network((batch, 3)), ["x"], ["y"]).graph.output
    assert y.type.tensor_type.shape.dim[0].dim_param == "n"


def test_an_output_of_another_shape_is_named() -> None:
    for shape in (("n", 5), ("n", 2)):
        with pytest.raises(
            ModelFileError, match=rf"'y' is declared as \(m, {shape[1]}\).*of shape \(None, 3\)"
        ):
            OnnxOracle(network(shape), target=1).value_and_gradient(POINTS)
    assert OnnxOracle(network(("n", 5)), target=1).value(POINTS).shape == (3,)
    with pytest.raises(ValueError, match="target 4 is out of range: output 'y' has 3 classes"):
        OnnxOracle(network(("n", 5)), target=4).value(POINTS)


def test_shapes_that_inference_cannot_tell_are_taken_from_the_file() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]>
        m (float[n, 4] x, int64[2] sizes) => (float[p, q] y)
        { c = acme.Frobnicate(x)  d = Add(c, c)  r = Reshape(x, sizes)  e = Mul(d, r)  y = Relu(e) }"""
    )
    for name, shape in {"c": ["n", 6], "r": ["n", 6], "e": ["n", 6]}.items():
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    types = normal_form(model, ["c"], ["y"]).types
    for name in ("c", "d", "r", "e", "y"):
        rows, columns = types[name].tensor_type.shape.dim
        assert (rows.dim_param, columns.dim_value) == ("p" if name == "y" else "n", 6), name
