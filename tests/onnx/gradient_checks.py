"""Compare the gradients of mollikit_onnx.vjp with differences of the model itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from mollikit_onnx import vjp
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.onnx.float64_reference import evaluator
from tests.onnx.rule_cases import Case

# Axis 1 of these stays a number where the others become symbols: kernels and channels are part of a model.
_CHANNELLED = ("Conv", "AveragePool", "LpPool", "MaxPool")
_FLOAT = {np.dtype(np.float64): TensorProto.DOUBLE, np.dtype(np.float32): TensorProto.FLOAT}


def drawn(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a case by name, floats in float64."""
    rng = np.random.default_rng(seed)
    return {
        f"x{k}": rng.standard_normal(x) if isinstance(x, tuple) else x
        for k, x in enumerate(case.inputs)
        if x is not None
    }


def one_node_model(case: Case, feeds: Mapping[str, np.ndarray], dtype: type, *, symbolic: bool) -> ModelProto:
    """A model of the one node; if symbolic, sizes are symbols and the integers arrive at run time."""
    inputs, constants = [], []
    for k, (name, array) in enumerate(feeds.items()):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype) if array.dtype == np.float64 else array.dtype)
        late = symbolic and array.dtype == np.int64 and int(name[1:]) not in case.fixed
        if array.dtype == np.float64 or late:
            shape: list[int | str] = list(array.shape)
            if symbolic and k == 0:
                kept = {1} if case.op_type in _CHANNELLED else set()
                shape = [n if axis in kept else f"n{axis}" for axis, n in enumerate(shape)]
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
        else:
            constants.append(numpy_helper.from_array(array, name))
    names = ["" if x is None else f"x{k}" for k, x in enumerate(case.inputs)]
    outputs = [f"y{k}" for k in range(case.n_outputs)]
    node = helper.make_node(case.op_type, names, outputs, name="the_node", **case.attributes)
    ports = defs.get_schema(case.op_type, case.opset).outputs
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
        for k, name in enumerate(outputs)
        if ports[min(k, len(ports) - 1)].types != {"tensor(int64)"}
    ]
    graph = helper.make_graph([node], "one_node", inputs, declared, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)


def _allows_double(case: Case) -> bool:
    schema = defs.get_schema(case.op_type, case.opset)
    return any("tensor(double)" in given.types for given in schema.inputs)


def _widened(model: ModelProto) -> ModelProto:
    """A float32 model with constants of float64: onnx's evaluator then computes in float64, schema or not."""
    wide = ModelProto.FromString(model.SerializeToString())
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(float), tensor.name))
    return wide


def check_case(case: Case, *, symbolic: bool) -> None:
    feeds = drawn(case)
    wrt = [name for name, x in feeds.items() if x.dtype == np.float64]
    double = _allows_double(case)
    model = one_node_model(case, feeds, np.float64 if double else np.float32, symbolic=symbolic)
    outputs = [value.name for value in model.graph.output]
    before = model.SerializeToString()
    gradient = vjp(model, wrt, outputs)
    assert model.SerializeToString() == before
    if not double:
        model, gradient = _widened(model), _widened(gradient)
    shown = {value.name for value in model.graph.input}
    feeds = {name: x for name, x in feeds.items() if name in shown}

    forward = evaluator(model)
    rng = np.random.default_rng(1)
    values = forward.run(None, feeds)
    cotangents = {
        f"{name}.cotangent": rng.standard_normal(np.shape(y)) for name, y in zip(outputs, values, strict=True)
    }
    got = evaluator(gradient).run([f"{name}.gradient" for name in wrt], feeds | cotangents)
    for name, array in zip(wrt, got, strict=True):
        assert array.shape == feeds[name].shape
        assert array.dtype == np.float64
        assert_directional(forward, feeds, name, array, list(cotangents.values()), rng)

    narrow = vjp(one_node_model(case, drawn(case), np.float32, symbolic=symbolic), wrt, outputs)
    single = {
        n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in (feeds | cotangents).items()
    }
    names = [value.name for value in narrow.graph.output]
    for name, here, there in zip(names, run_onnxruntime(narrow, single), [*values, *got], strict=True):
        assert here.shape == there.shape, name
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5 * max(1.0, np.abs(there).max(initial=0)))


def check_linear(case: Case, *, symbolic: bool) -> None:
    """The adjoint law of an operator that is linear in its first input, <g, A d> = <A' g, d>, in float32.

    It needs no second implementation, so the runtime's own rounding of places and sizes does not matter.
    """
    feeds = {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in drawn(case).items()}
    model = one_node_model(case, drawn(case), np.float32, symbolic=symbolic)
    (y,) = run_onnxruntime(model, feeds)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    got, gradient = run_onnxruntime(vjp(model, ["x0"], ["y0"]), feeds | {"y0.cotangent": g})
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-6 * max(1.0, np.abs(y).max(initial=0)))
    assert gradient.shape == feeds["x0"].shape
    scale = max(1.0, float(np.linalg.norm(g) * np.linalg.norm(y)))
    np.testing.assert_allclose(np.vdot(gradient, feeds["x0"]), np.vdot(g, y), rtol=0, atol=1e-5 * scale)


def assert_directional(
    forward: ReferenceEvaluator,
    feeds: Mapping[str, np.ndarray],
    name: str,
    gradient: np.ndarray,
    cotangents: list[np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Compare with central differences along three random directions.

    The error of a difference is about h^2 times the third derivative, and the rounding of y over h.
    """
    h = 1e-5
    for _ in range(3):
        direction = rng.standard_normal(gradient.shape)
        ahead = forward.run(None, {**feeds, name: feeds[name] + h * direction})
        behind = forward.run(None, {**feeds, name: feeds[name] - h * direction})
        slope = sum(np.vdot(c, a - b) / (2 * h) for c, a, b in zip(cotangents, ahead, behind, strict=True))
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        np.testing.assert_allclose(
            np.vdot(gradient, direction), slope, rtol=0, atol=1e-7 * max(1.0, float(scale))
        )


def run_onnxruntime(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    asked = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    return list(session.run(None, {name: x for name, x in feeds.items() if name in asked}))
