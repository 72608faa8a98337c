"""Operators of ai.onnx.ml: linear ones against ONNX Runtime and differences, the others refused."""

from __future__ import annotations

import numpy as np
import pytest
from mollikit_onnx import OnnxOracle, UnsupportedOperatorError, vjp
from onnx import ModelProto, TensorProto, defs, helper

ML = "ai.onnx.ml"
SERVED = {"ArrayFeatureExtractor", "Binarizer", "LinearRegressor", "Normalizer", "Scaler"}
OTHERS = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ML} - SERVED)
X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
SCALE, OFFSET = [0.5, 2.0, 1.5], [0.1, -0.2, 0.3]
W = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
B = [0.25, -0.5]


def model(*nodes, version=1, element=TensorProto.FLOAT) -> ModelProto:
    x = helper.make_tensor_value_info("x", element, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ML, version)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8)


def node(op_type, source, result, **attributes):
    return helper.make_node(op_type, [source], [result], domain=ML, **attributes)


def scaled(x):
    return (x - OFFSET) * SCALE


def regressed(x):
    return x @ W.T.astype(float) + B


SCALER = {"scale": SCALE, "offset": OFFSET}
REGRESSOR = {"coefficients": W.ravel().tolist(), "intercepts": B, "targets": 2}
NORMS = {
    "MAX": lambda x: x / x.max(1, keepdims=True),
    "L1": lambda x: x / abs(x).sum(1, keepdims=True),
    "L2": lambda x: x / np.sqrt((x**2).sum(1, keepdims=True)),
}
CASES = {
    "Scaler": ((node("Scaler", "x", "y", **SCALER),), scaled),
    "of one scale": ((node("Scaler", "x", "y", scale=[2.0], offset=[1.0]),), lambda x: 2 * (x - 1)),
    "LinearRegressor": ((node("LinearRegressor", "x", "y", **REGRESSOR),), regressed),
    "without intercepts": (
        (node("LinearRegressor", "x", "y", coefficients=W[0].tolist()),),
        lambda x: x @ W[:1].T.astype(float),
    ),
    **{norm: ((node("Normalizer", "x", "y", norm=norm),), by_hand) for norm, by_hand in NORMS.items()},
    "pipeline": (
        (
            node("Scaler", "x", "s", **SCALER),
            node("Normalizer", "s", "t", norm="L2"),
            node("LinearRegressor", "t", "y", **REGRESSOR),
        ),
        lambda x: regressed(NORMS["L2"](scaled(x))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_linear_operators_of_scikit_learn(name) -> None:
    nodes, by_hand = CASES[name]
    oracle = OnnxOracle(model(*nodes), target=0, values=True)
    exact = X.astype(float)
    values, gradients = oracle.value_and_gradient(X)
    np.testing.assert_allclose(oracle.predict(X), by_hand(exact), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, by_hand(exact)[:, 0], rtol=1e-5, atol=1e-6)
    step = 1e-6
    for k, axis in enumerate(np.eye(3)):
        slope = (by_hand(exact + step * axis) - by_hand(exact - step * axis))[:, 0] / (2 * step)
        np.testing.assert_allclose(gradients[:, k], slope, rtol=1e-4, atol=1e-5)


def test_a_row_of_zeros_stays_one() -> None:
    oracle = OnnxOracle(model(node("Normalizer", "x", "y", norm="L2")), target=0, values=True)
    values, gradients = oracle.value_and_gradient(np.zeros((1, 3), np.float32))
    assert values.tolist() == oracle.value(np.zeros((1, 3), np.float32)).tolist() == [0]
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("op_type", OTHERS)
def test_the_others_point_to_what_needs_values_alone(op_type) -> None:
    version = 5 if op_type == "TreeEnsemble" else 1
    schema = defs.get_schema(op_type, version, ML)
    outputs = ["y", "other"][: len(schema.outputs)]
    refused = helper.make_node(op_type, ["x"] * len(schema.inputs), outputs[::-1], domain=ML)
    for attribute in schema.attributes.values():
        if attribute.required:
            tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
            filled = {"INTS": [0], "FLOATS": [0.0], "TENSOR": tensor, "STRINGS": ["a"]}
            refused.attribute.append(helper.make_attribute(attribute.name, filled[attribute.type.name]))
    with pytest.raises(
        UnsupportedOperatorError, match=rf"operator {op_type} \(domain ai.onnx.ml\).*mollikit.Secant"
    ):
        vjp(model(refused, version=version), ["x"], ["y"])


@pytest.mark.parametrize(
    "refused",
    [
        model(node("LinearRegressor", "x", "y", **REGRESSOR, post_transform="SOFTMAX")),
        model(node("Scaler", "x", "y", **SCALER), element=TensorProto.DOUBLE),
    ],
)
def test_what_is_not_covered(refused) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"without a post_transform.*mollikit.Secant"):
        vjp(refused, ["x"], ["y"])


def test_a_map_of_probabilities_is_no_output() -> None:
    maps = model(node("ZipMap", "x", "y", classlabels_int64s=[0, 1, 2]))
    keyed = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(keyed))
    with pytest.raises(ValueError, match=r"no output of floats, but \['y'\].*zipmap=False"):
        OnnxOracle(maps, target=0)
