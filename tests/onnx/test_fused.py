"""Operators of onnxruntime's own domain: written out they compute what its kernels do, and differentiate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from mollikit_onnx import UnsupportedOperatorError, vjp
from onnx import ModelProto, helper, numpy_helper

from tests.onnx import models
from tests.onnx.backend_suite import in_float64
from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import assert_directional, run_onnxruntime

F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def whole(rows: list, dtype: type = I32) -> np.ndarray:
    return np.array(rows, dtype)


ANGLES = np.arange(8)[:, None] / 10.0 ** np.arange(2)
COS, SIN = np.cos(ANGLES), np.sin(ANGLES)
QKV, WIDE = (normal(2, 3, 8), normal(2, 4, 8), normal(2, 4, 8) + 1), normal(2, 3, 8)
CASES: dict[str, tuple[np.ndarray | None, ...]] = {
    "Gelu()": (normal(2, 3),),
    "BiasGelu()": (normal(2, 3), normal(3)),
    "FastGelu()": (normal(2, 3),),
    "FastGelu() ": (normal(2, 3), normal(3)),
    "QuickGelu(alpha = 1.5)": (normal(2, 3),),
    "FusedMatMul(transA = 1, alpha = 0.5)": (normal(2, 4, 3), normal(2, 4, 5)),
    "FusedMatMul(transB = 1)": (normal(2, 3, 4), normal(5, 4)),
    "FusedMatMul(transBatchA = 1, transB = 1)": (normal(3, 2, 4), normal(2, 5, 4)),
    'FusedGemm(activation = "LeakyRelu", activation_alpha = 0.3, transB = 1)': (
        normal(2, 3),
        normal(4, 3),
        normal(4),
    ),
    'FusedConv(activation = "Relu", pads = [1, 1, 1, 1])': (
        normal(2, 3, 5, 5),
        normal(4, 3, 3, 3),
        normal(4),
    ),
    'FusedConv(activation = "Relu", strides = [2, 2])': (
        normal(1, 3, 5, 5),
        normal(4, 3, 3, 3),
        normal(4),
        normal(1, 4, 2, 2),
    ),
    'FusedConv(activation = "HardSigmoid", activation_params = [0.3, 0.4])': (
        normal(1, 2, 4, 4),
        normal(3, 2, 2, 2),
    ),
    'FusedConv(activation = "Clip", activation_params = [-0.5, 1.0])': (
        normal(1, 2, 4, 4),
        normal(3, 2, 2, 2),
    ),
    "SkipLayerNormalization(epsilon = 0.001)": (WIDE, WIDE + 1, normal(8), normal(8) + 1, normal(8) + 2),
    "SkipLayerNormalization()": (WIDE, WIDE[::-1].copy(), normal(8)),
    "SkipSimplifiedLayerNormalization(epsilon = 0.001)": (WIDE, WIDE + 1, normal(8), normal(8) + 2),
    "RotaryEmbedding()": (normal(1, 2, 3, 4), whole([[0, 2, 5]], I64), COS, SIN),
    "RotaryEmbedding(interleaved = 1)": (normal(2, 3, 8), whole([3], I64), COS, SIN),
    "RotaryEmbedding() ": (normal(2, 3, 8), whole([[0, 1, 2], [4, 5, 6]], I64), COS, SIN),
    "RotaryEmbedding(rotary_embedding_dim = 4, num_heads = 2)": (
        normal(2, 3, 12),
        whole([[0, 1, 2], [4, 5, 6]], I64),
        COS,
        SIN,
    ),
    "Attention(num_heads = 2)": (WIDE, normal(8, 24) / 3, normal(24)),
    "Attention(num_heads = 2, unidirectional = 1)": (WIDE, normal(8, 24) / 3, normal(24)),
    "Attention(num_heads = 2, scale = 0.7)": (
        WIDE,
        normal(8, 24) / 3,
        normal(24),
        whole([[1, 1, 0], [1, 1, 1]]),
        None,
        normal(2, 2, 3, 3),
    ),
    "MultiHeadAttention(num_heads = 2)": QKV,
    "MultiHeadAttention(num_heads = 2, scale = 0.5)": (*QKV, normal(24)),
    "MultiHeadAttention(num_heads = 4)": (
        *QKV,
        None,
        whole([[1, 1, 0, 0], [1, 1, 1, 1]]),
        normal(1, 1, 3, 4),
    ),
}


def one_node(call: str, arrays: tuple[np.ndarray | None, ...], domain: str = "com.microsoft") -> ModelProto:
    """A model of one call, its inputs x0, x1, ...; batch and sequence of the first are symbols."""
    op_type, options = call.strip().rstrip(")").split("(", 1)
    inputs = []
    for k, array in enumerate(arrays):
        if array is not None:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(F32) if array.dtype == F64 else array.dtype)
            shape = ["N" if k == 0 and axis == 0 else n for axis, n in enumerate(array.shape)]
            inputs.append(helper.make_tensor_value_info(f"x{k}", kind, shape))
    names = ", ".join("" if a is None else f"x{k}" for k, a in enumerate(arrays))
    attributes = f"<{options}>" if options else ""
    model: ModelProto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]> m () => () '
        f"{{ h = {domain}.{op_type} {attributes} ({names})  y = Identity(h) }}"
    )
    model.graph.input.extend(inputs)
    model.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize("call", CASES)
def test_written_out_it_computes_what_the_kernel_does(call: str) -> None:
    arrays = CASES[call]
    model = one_node(call, arrays)
    feeds = {f"x{k}": a for k, a in enumerate(arrays) if a is not None}
    narrow = {n: a.astype(F32) if a.dtype == F64 else a for n, a in feeds.items()}
    (expected,) = run_onnxruntime(model, narrow)
    wrt = [n for n, a in feeds.items() if a.dtype == F64]
    gradient = vjp(model, wrt, ["y"])
    assert not any(node.domain for node in gradient.graph.node)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape)
    y, *single = run_onnxruntime(gradient, {**narrow, "y.cotangent": cotangent.astype(F32)})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)

    exact = evaluator(in_float64(gradient))
    got = exact.run([f"{n}.gradient" for n in wrt], {**feeds, "y.cotangent": cotangent})
    rng = np.random.default_rng(2)
    for name, here, there in zip(wrt, got, single, strict=True):
        assert here.shape == there.shape == feeds[name].shape
        np.testing.assert_allclose(there, here, rtol=0, atol=2e-5 * max(1, np.abs(here).max()))
        assert_directional(_Values(exact, cotangent), feeds, name, here, [cotangent], rng)


def test_what_is_of_the_runtime_alone_outlives_a_conversion() -> None:
    """The operator is none of ONNX, whose converter stops at such; the Softmax is one that it changes."""
    scale = normal(5).astype(F32)
    text = """<ir_version: 8, opset_import: ["" : 12]> m (float[N,5] x, float[5] scale) => (float[N,5] y) {
        p = Softmax(x)  y = SimplifiedLayerNormalization<axis = -1, epsilon = 0.001>(p, scale) }"""
    model: ModelProto = onnx.parser.parse_model(text)
    same: ModelProto = onnx.parser.parse_model(text.replace("12]", "18]"))
    x = normal(3, 5).astype(F32)
    feeds = {"x": x, "scale": scale, "y.cotangent": x[::-1].copy()}
    gradient, expected = (vjp(m, ["x", "scale"], ["y"]) for m in (model, same))
    assert {opset.domain for opset in gradient.opset_import} == {""}
    for one, other in zip(run_onnxruntime(gradient, feeds), run_onnxruntime(expected, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


class _Values:
    """The forward output of a gradient's evaluator, as `assert_directional` asks for it."""

    def __init__(self, run: object, cotangent: np.ndarray) -> None:
        self._run, self._cotangent = run, cotangent

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._run.run(["y"], {**feeds, "y.cotangent": self._cotangent})


BLOCK = """m (float[N,5,8] x) => (float[N,5,8] y) {
    two = Constant<value_float = 2.0>()
    root = Constant<value_float = 1.41421356>()
    half = Constant<value_float = 0.5>()
    one = Constant<value_float = 1.0>()
    epsilon = Constant<value_float = 0.00001>()
    last = Constant<value_ints = [-1]>()
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    t = Transpose<perm = [0, 2, 1]>(k)
    s = MatMul(q, t)
    scaled = Mul(s, half)
    p = Softmax<axis = -1>(scaled)
    a = MatMul(p, v)
    h = Add(a, x)
    mean = ReduceMean(h, last)
    centred = Sub(h, mean)
    squared = Pow(centred, two)
    variance = ReduceMean(squared, last)
    shifted = Add(variance, epsilon)
    deviation = Sqrt(shifted)
    normal = Div(centred, deviation)
    gained = Mul(normal, gain)
    n = Add(gained, shift)
    z = MatMul(n, w)
    b = Add(z, bias)
    over = Div(b, root)
    e = Erf(over)
    e1 = Add(e, one)
    half_b = Mul(b, half)
    y = Mul(half_b, e1)
}"""


def block() -> ModelProto:
    """Attention, a residual sum, LayerNormalization and Gelu, all in elementary operators."""
    model: ModelProto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {BLOCK}')
    shapes = dict.fromkeys(("wq", "wk", "wv", "w"), (8, 8)) | dict.fromkeys(("gain", "shift", "bias"), (8,))
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(F32), name))
    return model


@pytest.mark.parametrize(
    ("model", "left"),
    [(models.cnn(), {"FusedConv"}), (block(), {"FusedMatMul", "BiasGelu"})],
    ids=["cnn", "block"],
)
def test_what_the_optimiser_leaves(model: ModelProto, left: set[str], tmp_path: Path) -> None:
    """The gradient of the file that onnxruntime optimised is that of the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert left <= {node.op_type for node in optimised.graph.node}
    (port,), (out,) = model.graph.input, model.graph.output
    shape = [3, *(d.dim_value for d in port.type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(1).standard_normal(shape).astype(F32)
    (y,) = run_onnxruntime(model, {port.name: x})
    feeds = {
        port.name: x,
        f"{out.name}.cotangent": np.random.default_rng(2).standard_normal(y.shape).astype(F32),
    }
    expected, got = (run_onnxruntime(vjp(m, [port.name], [out.name]), feeds) for m in (model, optimised))
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())


def test_trees_point_to_the_estimators_of_black_boxes() -> None:
    model: ModelProto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "ai.onnx.ml" : 3]> m (float[N,3] x) => (float[N,1] y) '
        "{ y = ai.onnx.ml.TreeEnsembleRegressor(x) }"
    )
    with pytest.raises(
        UnsupportedOperatorError, match=r"TreeEnsembleRegressor.*Secant or mollikit\.ScoreFunction"
    ):
        vjp(model, ["x"], ["y"])
