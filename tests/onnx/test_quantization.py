"""Straight through quantisation: the derivative of rounding is 1 in the range of the integers, 0 outside."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import OnnxOracle, UnsupportedOperatorError, pruned, vjp
from onnx import ModelProto, numpy_helper
from onnxruntime import quantization

from tests.onnx import models
from tests.onnx.gradient_checks import run_onnxruntime

F32 = np.float32


def parsed(body: str, opset: int = 21, **constants: np.ndarray) -> ModelProto:
    imports = f'["" : {opset}, "com.microsoft" : 1]'
    model: ModelProto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: {imports}>\n{body}")
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items())
    return model


def gradients(model: ModelProto, wrt: list[str], **feeds: np.ndarray) -> list[np.ndarray]:
    result = pruned(vjp(model, wrt, ["y"], straight_through=True), [f"{name}.gradient" for name in wrt])
    feeds = {name.replace("cotangent", "y.cotangent"): np.asarray(a) for name, a in feeds.items()}
    return run_onnxruntime(result, feeds)


ROUND_TRIP = """m (float[N,3] x, float s) => (float[N,3] y)
{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"""


def test_without_asking_it_is_refused() -> None:
    model = parsed(ROUND_TRIP, z=np.int8(3))
    with pytest.raises(UnsupportedOperatorError, match=r"QuantizeLinear.*pass straight_through=True"):
        vjp(model, ["x"], ["y"])


def test_inside_the_range_and_outside() -> None:
    """Codes of x / 0.5 + 3 in [-128, 127]; d/ds is q - z - x / s inside and q - z outside."""
    x = np.array([[-100, -65.5, -65.3], [0.3, 62, 62.3]], F32)
    of_x, of_s = gradients(
        parsed(ROUND_TRIP, z=np.int8(3)), ["x", "s"], x=x, s=F32(0.5), cotangent=np.ones_like(x)
    )
    np.testing.assert_array_equal(of_x, [[0, 1, 1], [1, 1, 0]])
    v = x.astype(float) / 0.5
    codes = np.clip(np.round(v), -131, 124)
    np.testing.assert_allclose(of_s, (codes - of_x * v).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((3,), "axis = 1"), ((2, 3), "axis = 0, block_size = 2"), ((4, 2), "axis = -1, block_size = 2")],
)
def test_scales_of_axes_and_of_blocks(shape: tuple[int, ...], options: str) -> None:
    body = f"""m (float[4,3] x, float[{",".join(map(str, shape))}] s) => (float[4,3] y) {{
        q = QuantizeLinear<{options}>(x, s)  y = DequantizeLinear<{options}>(q, s) }}"""
    rng = np.random.default_rng(0)
    x, s, g = (rng.uniform(0.5, 2, size).astype(F32) for size in ((4, 3), shape, (4, 3)))
    of_x, of_s = gradients(parsed(body), ["x", "s"], x=x, s=s, cotangent=g)
    np.testing.assert_allclose(of_x, g, rtol=1e-6)
    if len(shape) == 1:
        wide = np.broadcast_to(s, x.shape)
        places = np.broadcast_to(np.arange(3), x.shape)
    else:
        axis = 0 if shape[0] < 4 else 1
        wide, places = (np.repeat(a, 2, axis)[:4, :3] for a in (s, np.arange(s.size).reshape(shape)))
    parts = g.astype(float) * (np.round(x.astype(float) / wide) - x.astype(float) / wide)
    expected = np.bincount(places.ravel(), parts.ravel(), s.size).reshape(shape)
    np.testing.assert_allclose(of_s, expected, rtol=0, atol=1e-5)


def test_the_gradient_of_scales_needs_no_straight_through() -> None:
    model = parsed(
        "m (float s) => (float[2] y) { y = DequantizeLinear(q, s, z) }",
        q=np.array([5, -3], np.int8),
        z=np.int8(1),
    )
    result = pruned(vjp(model, ["s"], ["y"]), ["s.gradient"])
    (got,) = run_onnxruntime(result, {"s": np.array(2, F32), "y.cotangent": np.array([1, 10], F32)})
    assert got == 4 - 40


LAYOUTS = [
    "r = Transpose<perm = [0, 2, 3, 1]>(q)  y = DequantizeLinear(r, s)",
    "r = Reshape(q, shape)  y = DequantizeLinear(r, s)",
    "r = MaxPool<kernel_shape = [2, 2]>(q)  y = DequantizeLinear(r, s)",
    "r = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(q)  y = DequantizeLinear(r, s)",
    "r = Concat<axis = 1>(q, q)  y = DequantizeLinear(r, s)",
    "r = Slice(q, one, three)  y = DequantizeLinear(r, s)",
    "r = Cast<to = 1>(q)  y = Mul(r, s)",
]


@pytest.mark.parametrize("body", LAYOUTS)
def test_integers_may_be_moved_about(body: str) -> None:
    """The gradient is that of the same on floats, at values that are codes already."""
    constants = {"s": F32(0.5), "shape": np.array([2, -1]), "one": np.array([1]), "three": np.array([3])}
    quantised = parsed(
        f"m (float[3,2,4,4] x) => (float[A,B,C,D] y) {{ q = QuantizeLinear(x, s)  {body} }}", **constants
    )
    plain = body.replace("DequantizeLinear(r, s)", "Identity(r)").replace("Cast<to = 1>(q)", "Div(q, s)")
    floats = parsed(f"m (float[3,2,4,4] x) => (float[A,B,C,D] y) {{ q = Identity(x)  {plain} }}", **constants)
    for model in (quantised, floats):
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    x = np.random.default_rng(0).permutation(96).reshape(3, 2, 4, 4).astype(F32) / 2
    (y,) = run_onnxruntime(floats, {"x": x})
    g = np.random.default_rng(1).standard_normal(y.shape).astype(F32)
    (got,) = gradients(quantised, ["x"], x=x, cotangent=g)
    (expected,) = gradients(floats, ["x"], x=x, cotangent=g)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_what_computes_with_integers_is_refused() -> None:
    model = parsed(
        "m (float[N] x) => (float[N] y) "
        "{ q = QuantizeLinear(x, s)  r = Mul(q, q)  y = DequantizeLinear(r, s) }",
        s=F32(0.5),
    )
    with pytest.raises(UnsupportedOperatorError, match=r"Mul.*quantised integers 'q'"):
        vjp(model, ["x"], ["y"], straight_through=True)


class _Images(quantization.CalibrationDataReader):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self._feeds = iter([{name: rng.standard_normal((8, *shape)).astype(F32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def statically(model: ModelProto, path, form: quantization.QuantFormat, **options: object) -> ModelProto:
    port = model.graph.input[0]
    shape = tuple(d.dim_value for d in port.type.tensor_type.shape.dim[1:])
    target = str(path / f"{form}.onnx")
    quantization.quantize_static(model, target, _Images(port.name, shape), quant_format=form, **options)
    return onnx.load(target)


@pytest.fixture(scope="module")
def network() -> ModelProto:
    return models.cnn()


@pytest.mark.parametrize("form", list(quantization.QuantFormat), ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_networks_that_onnxruntime_quantises(network, form, per_channel, tmp_path) -> None:
    """The gradient points where that of the network in floats does."""
    quantised = statically(network, tmp_path, form, per_channel=per_channel)
    kinds = {node.op_type for node in quantised.graph.node}
    assert ("QLinearConv" if form == quantization.QuantFormat.QOperator else "DequantizeLinear") in kinds
    x = np.random.default_rng(1).standard_normal((16, 2, 8, 8)).astype(F32)
    g = np.eye(4, dtype=F32)[np.arange(16) % 4]
    results = []
    for model in (network, quantised):
        result = vjp(model, ["image"], ["logits"], straight_through=True)
        y, gradient = run_onnxruntime(result, {"image": x, "logits.cotangent": g})
        (expected,) = run_onnxruntime(model, {"image": x})
        # One step of the last quantiser, where its input is rounded the other way.
        np.testing.assert_allclose(y, expected, atol=0.05 if model is quantised else 1e-6)
        results.append(gradient)
    exact, found = (r.ravel() / np.linalg.norm(r) for r in results)
    assert exact @ found > 0.95


@pytest.mark.parametrize(
    ("model", "kind"), [(models.mlp(), "MatMulInteger"), (models.cnn(), "ConvInteger")], ids=["mlp", "cnn"]
)
def test_a_network_quantised_as_it_runs(model, kind, tmp_path) -> None:
    quantization.quantize_dynamic(model, tmp_path / "dynamic.onnx", weight_type=quantization.QuantType.QUInt8)
    quantised = onnx.load(tmp_path / "dynamic.onnx")
    assert kind in {node.op_type for node in quantised.graph.node}
    (port,) = model.graph.input
    (classes,) = (d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim[1:])
    shape = [16, *(d.dim_value for d in port.type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(1).standard_normal(shape).astype(F32)
    g = np.eye(classes, dtype=F32)[np.arange(16) % classes]
    results = []
    for each in (model, quantised):
        result = pruned(vjp(each, [port.name], ["logits"], straight_through=True), [f"{port.name}.gradient"])
        results += run_onnxruntime(result, {port.name: x, "logits.cotangent": g})
    exact, found = (r.ravel() / np.linalg.norm(r) for r in results)
    assert exact @ found > 0.99


OPERATORS = {
    "com.microsoft.QLinearAdd(q, s, z, q, s, z, t, z)": "Add(x, x)",
    "com.microsoft.QLinearMul(q, s, z, q, s, z, t, z)": "Mul(x, x)",
    "com.microsoft.QLinearSigmoid(q, s, z, t, z)": "Sigmoid(x)",
    "com.microsoft.QLinearLeakyRelu<alpha = 0.3>(q, s, z, t, z)": "LeakyRelu<alpha = 0.3>(x)",
    "com.microsoft.QLinearSoftmax<axis = 3, opset = 13>(q, s, z, t, z)": "Softmax<axis = 3>(x)",
    "com.microsoft.QLinearGlobalAveragePool(q, s, z, t, z)": "GlobalAveragePool(x)",
    "com.microsoft.QLinearAveragePool<kernel_shape = [2, 2]>(q, s, z, t, z)": (
        "AveragePool<kernel_shape = [2, 2]>(x)"
    ),
    "com.microsoft.QLinearConcat<axis = 1>(t, z, q, s, z, q, s, z)": "Concat<axis = 1>(x, x)",
    "QLinearConv<pads = [1, 0, 1, 0]>(q, s, z, w, ws, wz, t, z, b)": "Conv<pads = [1, 0, 1, 0]>(x, wf, bf)",
    "QLinearMatMul(q, s, z, v, vs, vz, t, z)": "MatMul(x, vf)",
}


@pytest.mark.parametrize("call", OPERATORS, ids=lambda call: call.partition("(")[0])
def test_operators_on_integers(call: str) -> None:
    """Forward as the kernel, up to a step; the gradient is that on floats, at values that are codes."""
    rng = np.random.default_rng(0)
    w, ws, b = (
        rng.integers(-9, 9, (3, 2, 3, 3)).astype(np.int8),
        np.array([0.1, 0.2, 0.3], F32),
        np.arange(3, dtype=np.int32),
    )
    v = rng.integers(0, 99, (4, 5)).astype(np.uint8)
    constants = {
        "s": F32(0.25),
        "t": F32(0.2),
        "z": np.uint8(110),
        "w": w,
        "ws": ws,
        "wz": np.zeros(3, np.int8),
        "b": b,
    }
    constants |= {"v": v, "vs": F32(0.01), "vz": np.uint8(50)}
    constants |= {
        "wf": w * ws[:, None, None, None],
        "bf": (b * 0.25 * ws).astype(F32),
        "vf": (v.astype(F32) - 50) * F32(0.01),
    }
    body = f"""m (float[N,2,4,4] x) => (float y)
        {{ q = QuantizeLinear(x, s, z)  r = {call}  y = DequantizeLinear(r, t, z) }}"""
    floats = parsed(f"m (float[N,2,4,4] x) => (float y) {{ y = {OPERATORS[call]} }}", **constants)
    quantised = parsed(body, **constants)
    for model in (quantised, floats):
        model.graph.output[0].type.tensor_type.ClearField("shape")
    x = rng.integers(-8, 8, (3, 2, 4, 4)).astype(F32) / 4
    (expected,) = run_onnxruntime(quantised, {"x": x})
    g = rng.standard_normal(expected.shape).astype(F32)
    y, got = run_onnxruntime(vjp(quantised, ["x"], ["y"], straight_through=True), {"x": x, "y.cotangent": g})
    np.testing.assert_allclose(y, expected, atol=0.2 * 1.001)
    assert np.mean(np.abs(y - expected) < 0.01) > 0.9
    (wanted,) = gradients(floats, ["x"], x=x, cotangent=g)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_products_of_integers_that_come_out_as_floats() -> None:
    rng = np.random.default_rng(0)
    v = rng.integers(0, 99, (6, 5)).astype(np.uint8)
    constants = {"v": v, "vs": F32(0.01), "vz": np.uint8(50), "b": np.arange(5, dtype=F32)}
    constants["f"] = (v.astype(F32) - 50) * F32(0.01)
    x, g = rng.standard_normal((4, 6)).astype(F32), rng.standard_normal((4, 5)).astype(F32)
    bodies = (
        "y = com.microsoft.DynamicQuantizeMatMul(x, v, vs, vz, b)",
        "q, s, z = DynamicQuantizeLinear(x)  y = com.microsoft.MatMulIntegerToFloat(q, v, s, vs, z, vz, b)",
        "m = MatMul(x, f)  y = Add(m, b)",
    )
    found = []
    for body in bodies:
        model = parsed(f"m (float[N,6] x) => (float[N,5] y) {{ {body} }}", **constants)
        (expected,) = run_onnxruntime(model, {"x": x})
        result = vjp(model, ["x"], ["y"], straight_through=True)
        y, gradient = run_onnxruntime(result, {"x": x, "y.cotangent": g})
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        found.append(gradient)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    # The largest and the smallest element move the scale of all codes too.
    assert np.sum(np.abs(found[0] - found[2]) > 1e-5) <= 2


def test_the_oracle_takes_the_same_option(network, tmp_path) -> None:
    quantised = statically(network, tmp_path, quantization.QuantFormat.QDQ)
    x = np.random.default_rng(1).standard_normal((2, 2, 8, 8)).astype(F32)
    oracle = OnnxOracle(quantised, target=1)
    assert oracle.predict(x).shape == (2, 4)
    with pytest.raises(UnsupportedOperatorError, match="straight_through=True"):
        oracle.value_and_gradient(x)
    through = OnnxOracle(quantised, target=1, straight_through=True)
    assert through.describe()["straight_through"]
    _, got = through.value_and_gradient(x)
    result = pruned(vjp(quantised, ["image"], ["logits"], straight_through=True), ["image.gradient"])
    g = np.eye(4, dtype=F32)[[1, 1]]
    (expected,) = run_onnxruntime(result, {"image": x, "logits.cotangent": g})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
