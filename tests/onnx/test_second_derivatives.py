"""The vjp of a vjp: the gradient of <v, gradient> is the Hessian times v."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import pruned, vjp
from onnx import ModelProto

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import assert_directional, run_onnxruntime

# Nodes from x and the weights w, u and b to y; shapes of these; opset.
MODELS = {
    "perceptron": (
        "h = Gemm(x, w, b)  a = Tanh(h)  y = MatMul(a, u)",
        {"w": (4, 5), "b": (5,), "u": (5, 2)},
        20,
    ),
    "softmax": (
        "h = MatMul(x, w)  s = Softmax<axis = -1>(h)  y = MatMul(s, u)",
        {"w": (4, 3), "u": (3, 2)},
        20,
    ),
    "convolution": (
        "s = Constant<value_ints = [1, 1, 3, 4]>()  p = Reshape(x, s)  c = Conv<pads = [1, 1, 1, 1]>(p, w) "
        "e = Exp(c)  y = AveragePool<kernel_shape = [2, 2], strides = [1, 2]>(e)",
        {"w": (2, 1, 3, 3)},
        20,
    ),
    "log-softmax": ("h = MatMul(x, w)  y = LogSoftmax<axis = -1>(h)", {"w": (4, 3)}, 20),
    "layer norm": ("h = LayerNormalization(x, w)  s = Sigmoid(h)  y = Mul(s, x)", {"w": (4,)}, 20),
    "einsum": ('h = Einsum<equation = "ij,jk,ik->ij">(x, w, x)  y = Sin(h)', {"w": (4, 4)}, 20),
    "reductions": (
        "a = Constant<value_ints = [1]>()  n = ReduceL2(x, a)  l = ReduceLogSumExp(x, a) "
        "p = ReduceProd(x, a)  s = ReduceSumSquare(x, a)  m = Sum(n, l, p)  y = Mul(m, s)",
        {},
        20,
    ),
    "indices": (
        "k = Constant<value_ints = [2, 0, 2]>()  g = Gather<axis = 1>(x, k) "
        "i = Constant<value_int = 1>()  c = CumSum(g, i)  s = Sin(c)  t = Mul(s, c) "
        "y = Concat<axis = 1>(t, x)",
        {},
        20,
    ),
    "determinant": (
        "t = Transpose(x)  g = MatMul(x, t)  e = Constant<value_float = 1.0>()  f = CastLike(e, x) "
        "h = Add(g, f)  q = Exp(h)  d = Det(q)  y = Log(d)",
        {},
        20,
    ),
    "attention": (
        "s = Constant<value_ints = [1, 1, 3, 4]>()  p = Reshape(x, s)  k = MatMul(p, w)  v = MatMul(p, u) "
        "y = Attention<is_causal = 1>(p, k, v)",
        {"w": (4, 4), "u": (4, 4)},
        23,
    ),
    "recurrent": (
        "a = Constant<value_ints = [1]>()  t = Unsqueeze(x, a)  y, z, c = LSTM<hidden_size = 2>(t, w, u, b)",
        {"w": (1, 8, 4), "u": (1, 8, 2), "b": (1, 16)},
        20,
    ),
    "scan": (
        "y = Scan<num_scan_inputs = 1, body = s (real[4] h, real[4] i) => (real[4] o)"
        " { a = Mul(h, w)  c = Add(a, i)  o = Sin(c) }>(b, x)",
        {"w": (4,), "b": (4,)},
        20,
    ),
    "branch": (
        "n = ReduceMax<keepdims = 0>(x)  f = Cast<to = 9>(n)  y = If(f)<then_branch = t () => (real[A,B] p)"
        " { q = Exp(x)  p = MatMul(q, w) }, else_branch = e () => (real[A,B] r) { r = MatMul(x, w) }>",
        {"w": (4, 4)},
        20,
    ),
}  # fmt: skip


def model_of(name: str, real: str) -> ModelProto:
    nodes, weights, opset = MODELS[name]
    given = ", ".join(
        f"real[{','.join(map(str, shape))}] {n}" for n, shape in {"x": ("N", 4), **weights}.items()
    )
    body = f'<ir_version: 10, opset_import: ["" : {opset}]> m ({given}) => (real y) {{ {nodes} }}'
    model = onnx.parser.parse_model(body.replace("real", real))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def products(name: str, real: str) -> tuple[ModelProto, ModelProto, list[str]]:
    """The gradient of a model's y by x, and the vjp of that by x and the weights."""
    model, weights = model_of(name, real), MODELS[name][1]
    first = pruned(vjp(model, ["x"], ["y"]), ["x.gradient"])
    # The names of the second gradients must be free.
    for node in first.graph.node:
        node.output[:] = ["slope" if n == "x.gradient" else n for n in node.output]
    first.graph.output[0].name = "slope"
    return first, vjp(first, ["x", *weights], ["slope"]), ["x", *weights]


@pytest.mark.parametrize("name", MODELS)
def test_hessian_times_a_vector(name: str) -> None:
    first, second, wrt = products(name, "double")
    rng = np.random.default_rng(0)
    feeds = {n: rng.uniform(0.3, 1.2, shape) for n, shape in {"x": (3, 4), **MODELS[name][1]}.items()}
    forward = evaluator(model_of(name, "double"))
    feeds["y.cotangent"] = rng.standard_normal(forward.run(None, feeds)[0].shape)
    v = rng.standard_normal((3, 4))
    asked = [f"{n}.gradient" for n in wrt]
    got = evaluator(second).run(asked, {**feeds, "slope.cotangent": v})
    for n, array in zip(wrt, got, strict=True):
        assert_directional(evaluator(first), feeds, n, array, [v], rng)
    _, narrow, _ = products(name, "float")
    single = {n: x.astype(np.float32) for n, x in {**feeds, "slope.cotangent": v}.items()}
    for here, there in zip(run_onnxruntime(pruned(narrow, asked), single), got, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-4 * max(1, np.abs(there).max()))
