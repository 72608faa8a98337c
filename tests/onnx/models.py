"""Small models for the oracle's tests, with float32 weights from fixed seeds."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, weights=None, *, opset=18, ir_version=9):
    """Inputs and outputs are (name, element type, shape); weights are arrays by name."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=ir_version, producer_name="mollikit tests"
    )


def mlp(*, dtype=np.float32, batch="n", classes=5):
    """x (n, 6) -> logits (n, classes), smooth."""
    rng = np.random.default_rng(0)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {
        "W1": rng.standard_normal((6, 16)).astype(dtype) / 2,
        "b1": rng.standard_normal(16).astype(dtype),
        "W2": rng.standard_normal((16, classes)).astype(dtype) / 2,
        "b2": rng.standard_normal(classes).astype(dtype),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "W1", "b1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "W2", "b2"], ["logits"]),
    ]
    return model(nodes, [("x", element, [batch, 6])], [("logits", element, [batch, classes])], weights)


def mlp_by_hand(points, target):
    """Value and gradient of `mlp` in float64."""
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in mlp().graph.initializer}
    a = np.tanh(points @ w["W1"] + w["b1"])
    values = (a @ w["W2"] + w["b2"])[np.arange(len(points)), target]
    return values, (w["W2"].T[target] * (1 - a**2)) @ w["W1"].T


def cnn(*, batch="n"):
    """image (n, 2, 8, 8) -> logits (n, 4), with ReLU and average pooling."""
    rng = np.random.default_rng(1)
    weights = {
        "K1": rng.standard_normal((6, 2, 3, 3)).astype(np.float32) / 3,
        "c1": rng.standard_normal(6).astype(np.float32),
        "K2": rng.standard_normal((4, 6, 3, 3)).astype(np.float32) / 5,
    }
    nodes = [
        helper.make_node("Conv", ["image", "K1", "c1"], ["h1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h1"], ["a1"]),
        helper.make_node("AveragePool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "K2"], ["h2"], kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["h2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["logits"]),
    ]
    inputs = [("image", TensorProto.FLOAT, [batch, 2, 8, 8])]
    return model(nodes, inputs, [("logits", TensorProto.FLOAT, [batch, 4])], weights)


def two_inputs():
    """y = tanh(a W) * b + mask * b, element by element: a (n, 3), b (n, 4), mask int64 (n, 4) -> y (n, 4)."""
    weights = {"W": np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["a", "W"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["t", "m"], ["s"]),
        helper.make_node("Mul", ["s", "b"], ["y"]),
    ]
    inputs = [
        ("a", TensorProto.FLOAT, ["n", 3]),
        ("b", TensorProto.FLOAT, ["n", 4]),
        ("mask", TensorProto.INT64, ["n", 4]),
    ]
    return model(nodes, inputs, [("y", TensorProto.FLOAT, ["n", 4])], weights)


def squares(shape=("n", 3), output_shape=None, *, element=TensorProto.FLOAT):
    """y = x^2, element by element, for any shape; the gradient is 2 x at the target."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
    output = list(output_shape) if output_shape is not None else list(shape)
    return model(nodes, [("x", element, list(shape))], [("y", element, output)])


def expanding():
    """x (n, 1) -> y (n, 1) by way of 4e15 numbers, more than any memory holds."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axis"], ["y"]),
    ]
    weights = {"shape": np.array([1, 10**15]), "axis": np.array([1])}
    ports = ("x", TensorProto.FLOAT, ["n", 1]), ("y", TensorProto.FLOAT, ["n", 1])
    return model(nodes, ports[:1], ports[1:], weights)


def without_floats():
    """Token ids in, token ids out."""
    ports = ("ids", TensorProto.INT64, ["n", 3]), ("out", TensorProto.INT64, ["n", 3])
    return model([helper.make_node("Add", ["ids", "ids"], ["out"])], ports[:1], ports[1:])


def custom_operator():
    """A node of a domain that ONNX Runtime does not have."""
    made = squares()
    made.graph.node[0].op_type, made.graph.node[0].domain = "Frobnicate", "acme"
    made.opset_import.append(helper.make_opsetid("acme", 1))
    return made
