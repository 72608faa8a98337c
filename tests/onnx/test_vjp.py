"""What the transform promises about names, types, refusals and graphs, whatever the operators."""

import numpy as np
import onnx
import onnx.parser
import pytest
from mollikit_onnx import ModelError, OpsetError, UnknownTensorError, UnsupportedOperatorError, pruned, vjp
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime


def parsed(body: str, opset: int = 20, more: str = "") -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{more}]>\n{body}')


SHARED = "m (double[N,3] x) => (double[N,3] y) { s = Sin(x)  t = Mul(s, s)  u = Add(t, s)  y = Mul(u, x) }"


def gradients(model: ModelProto, feeds: dict[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
    return evaluator(vjp(model, names, ["y"])).run([f"{name}.gradient" for name in names], feeds)


def test_signature_is_the_forward_one_and_more() -> None:
    result = vjp(parsed(SHARED), ["x"], ["y"])
    assert [value.name for value in result.graph.input] == ["x", "y.cotangent"]
    assert [value.name for value in result.graph.output] == ["y", "x.gradient"]
    assert result.graph.output[1].type == result.graph.input[0].type
    onnx.checker.check_model(result, full_check=True)


def test_shared_subexpressions_accumulate() -> None:
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    (got,) = gradients(parsed(SHARED), {"x": x, "y.cotangent": np.ones_like(x)}, ["x"])
    s, c = np.sin(x), np.cos(x)
    np.testing.assert_allclose(got, s**2 + s + x * (2 * s * c + c), rtol=1e-14)


def test_forward_outputs_are_those_of_the_model() -> None:
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    model = parsed(SHARED)
    (expected,) = evaluator(model).run(None, {"x": x})
    (got,) = evaluator(vjp(model, ["x"], ["y"])).run(["y"], {"x": x, "y.cotangent": x})
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "stop",
    ["y = Floor(x)", "k = ArgMax(x)  y = Cast<to = 11>(k)", "k = Cast<to = 7>(x)  y = Cast<to = 11>(k)"],
)
def test_input_without_influence_gets_zeros(stop: str) -> None:
    model = parsed(f"m (double[N,3] x, double[M] z) => (double[A,B] y) {{ {stop} }}")
    x, z = np.ones((2, 3)), np.ones(4)
    shape = evaluator(model).run(None, {"x": x, "z": z})[0].shape
    got = gradients(model, {"x": x, "z": z, "y.cotangent": np.ones(shape)}, ["x", "z"])
    np.testing.assert_array_equal(got[0], np.zeros((2, 3)))
    np.testing.assert_array_equal(got[1], np.zeros(4))


def test_output_that_is_the_input() -> None:
    model = parsed("m (double[N] x) => (double[N] y) { y = Identity(x) }")
    g = np.arange(3.0)
    (got,) = gradients(model, {"x": g, "y.cotangent": g}, ["x"])
    np.testing.assert_array_equal(got, g)


def test_several_outputs_add_up() -> None:
    model = parsed("m (double[N] x) => (double[N] a, double[N] b) { a = Sin(x)  b = Mul(a, x) }")
    result = vjp(model, ["x"], ["a", "b"])
    x, g, h = np.array([0.3, 2.0]), np.array([1.0, -1.0]), np.array([0.5, 2.0])
    (got,) = evaluator(result).run(["x.gradient"], {"x": x, "a.cotangent": g, "b.cotangent": h})
    np.testing.assert_allclose(got, g * np.cos(x) + h * (np.sin(x) + x * np.cos(x)), rtol=1e-14)


def with_initializer(body: str, **arrays: np.ndarray) -> ModelProto:
    model = parsed(body)
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    return model


def test_wrt_weights_and_intermediate_tensors() -> None:
    w = np.arange(6.0).reshape(3, 2)
    model = with_initializer("m (double[N,3] x) => (double[N,2] y) { h = MatMul(x, w)  y = Mul(h, h) }", w=w)
    x, g = np.ones((2, 3)), np.array([[1.0, 2.0], [-1.0, 0.5]])
    of_w, of_h, of_x = gradients(model, {"x": x, "y.cotangent": g}, ["w", "h", "x"])
    h = x @ w
    np.testing.assert_allclose(of_h, 2 * g * h)
    np.testing.assert_allclose(of_w, x.T @ of_h)
    np.testing.assert_allclose(of_x, of_h @ w.T)


def test_vjp_of_a_vjp_of_a_smooth_model() -> None:
    """Differentiating <v, gradient> once more gives the Hessian times v."""
    model = parsed("m (double[N] x) => (double[N] y) { s = Sin(x)  y = Mul(s, x) }")
    first = vjp(model, ["x"], ["y"])
    for node in first.graph.node:
        node.output[:] = ["slope" if name == "x.gradient" else name for name in node.output]
    first.graph.output[1].name = "slope"
    second = vjp(first, ["x"], ["slope"])
    x, v = np.array([0.3, -1.0]), np.array([1.0, 2.0])
    feeds = {"x": x, "y.cotangent": np.ones(2), "slope.cotangent": v}
    (got,) = evaluator(second).run(["x.gradient"], feeds)
    np.testing.assert_allclose(got, v * (2 * np.cos(x) - x * np.sin(x)), rtol=1e-13)


CONVOLUTIONAL = """m (float[N,3,H,W] x) => (float[N,4,P,Q] y) {
    p = Pad(x, pads)
    c = Conv<strides = [2, 2]>(p, w, bias)
    n = BatchNormalization(c, scale, shift, mean, variance)
    y = Clip(n, low, high)
}"""


def convolutional() -> ModelProto:
    rng = np.random.default_rng(0)
    vectors = {name: rng.standard_normal(4).astype(np.float32) for name in ("bias", "scale", "shift", "mean")}
    return with_initializer(
        CONVOLUTIONAL,
        pads=np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        w=rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        variance=rng.uniform(0.5, 2, 4).astype(np.float32),
        low=np.float32(-1),
        high=np.float32(1.5),
        **vectors,
    )


def test_linear_neighbours_of_a_convolution_are_fused() -> None:
    model = convolutional()
    result = vjp(model, ["x"], ["y"])
    assert not {"Pad", "BatchNormalization"} & {node.op_type for node in result.graph.node}
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 7)).astype(np.float32)
    (y,) = run_onnxruntime(model, {"x": x})
    got, _ = run_onnxruntime(result, {"x": x, "y.cotangent": np.ones_like(y)})
    np.testing.assert_allclose(got, y, atol=1e-5)


def test_fused_and_unfused_gradients_are_equal() -> None:
    model = convolutional()
    # Tensors that are asked for keep their neighbours apart.
    whole = vjp(model, ["p", "c", "w", "scale", "mean", "variance", "x"], ["y"])
    assert {"Pad", "BatchNormalization"} <= {node.op_type for node in whole.graph.node}
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 7)).astype(np.float32)
    (y,) = run_onnxruntime(model, {"x": x})
    feeds = {"x": x, "y.cotangent": np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)}
    fused = vjp(model, ["w", "scale", "mean", "variance", "x"], ["y"])
    for name in ("w", "scale", "mean", "variance", "x"):
        (one,) = run_onnxruntime(pruned(whole, [f"{name}.gradient"]), feeds)
        (other,) = run_onnxruntime(pruned(fused, [f"{name}.gradient"]), feeds)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=name)


def test_weights_can_still_be_overridden() -> None:
    model = convolutional()
    result = vjp(model, ["x"], ["y"])
    names = ("w", "scale", "mean", "bias")
    for name in names:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        result.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 7)).astype(np.float32)
    changed = ModelProto.FromString(model.SerializeToString())
    feeds = {"x": x, "y.cotangent": np.ones((2, 4, 4, 3), np.float32)}
    for tensor in changed.graph.initializer:
        if tensor.name in names:
            feeds[tensor.name] = numpy_helper.to_array(tensor) * np.float32(1.1)
            tensor.CopyFrom(numpy_helper.from_array(feeds[tensor.name], tensor.name))
    (expected,) = run_onnxruntime(pruned(vjp(changed, ["x"], ["y"]), ["x.gradient"]), feeds)
    (got,) = run_onnxruntime(pruned(result, ["x.gradient"]), feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_constants_take_the_dtype_of_the_graph(dtype: int) -> None:
    body = "m (float[N,4] x) => (float[N,4] y) { a = Gelu(x)  b = LeakyRelu(a)  c = Softmax(b)  y = Sqrt(c) }"
    model = parsed(body)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = dtype
    result = vjp(model, ["x"], ["y"])
    onnx.checker.check_model(result, full_check=True)
    x = np.linspace(-1, 1, 8).reshape(2, 4)
    narrow = helper.tensor_dtype_to_np_dtype(dtype)
    feeds = {"x": x.astype(narrow), "y.cotangent": x.astype(narrow)}
    exact = evaluator(vjp(parsed(body.replace("float", "double")), ["x"], ["y"]))
    (expected,) = exact.run(["x.gradient"], {name: a.astype(np.float64) for name, a in feeds.items()})
    (got,) = evaluator(result).run(["x.gradient"], feeds)
    assert got.dtype == narrow
    # Eight bits of mantissa in bfloat16, a dozen operations.
    tolerance = {TensorProto.FLOAT16: 1e-2, TensorProto.BFLOAT16: 6e-2, TensorProto.DOUBLE: 1e-12}[dtype]
    np.testing.assert_allclose(got.astype(np.float64), expected, atol=tolerance * np.abs(expected).max())


def test_casts_between_floats_pass_cotangents() -> None:
    model = parsed("m (float[N] x) => (double[N] y) { d = Cast<to = 11>(x)  y = Mul(d, d) }")
    x = np.array([1.0, -2.0], np.float32)
    (got,) = gradients(model, {"x": x, "y.cotangent": np.ones(2)}, ["x"])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, 2 * x)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 22, 26])
def test_opsets(opset: int) -> None:
    model = parsed(
        "m (float[N,2,6,6] x) => (float[N,K] y) { c = Conv(x, w)  r = Relu(c) "
        "p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)  f = Flatten(p)  y = Softmax<axis = 1>(f) }",
        opset,
    )
    model.ir_version = min(10, {9: 4, 11: 6}.get(opset, 10))
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    result = vjp(model, ["x"], ["y"])
    x = np.random.default_rng(1).standard_normal((2, 2, 6, 6)).astype(np.float32)
    g = np.random.default_rng(2).standard_normal((2, 12)).astype(np.float32)
    (got,) = run_onnxruntime(pruned(result, ["x.gradient"]), {"x": x, "y.cotangent": g})
    h, d = 1e-2, np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    ahead, behind = (run_onnxruntime(model, {"x": x + s * h * d})[0] for s in (1, -1))
    assert np.vdot(got, d) == pytest.approx(np.vdot(g, ahead - behind) / (2 * h), rel=2e-2, abs=2e-3)


def test_what_is_emitted_is_clamped_to_what_onnxruntime_runs() -> None:
    model = parsed("m (float[N] x) => (float[N] y) { y = Sin(x) }", opset=27)
    model.ir_version = 14
    result = vjp(model, ["x"], ["y"])
    assert result.ir_version <= 13
    assert result.opset_import[0].version <= 26
    run_onnxruntime(result, {"x": np.ones(2, np.float32), "y.cotangent": np.ones(2, np.float32)})


def test_local_functions_are_inlined() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        m (double[N] x) => (double[N] y) { y = local.square(x) }
        <domain: "local", opset_import: ["" : 20]> square (a) => (b) { b = Mul(a, a) }""")
    x = np.array([1.0, 3.0])
    (got,) = gradients(model, {"x": x, "y.cotangent": np.ones(2)}, ["x"])
    np.testing.assert_array_equal(got, 2 * x)


CUSTOM = "m (double[N] x, double[N] z) => (double[N] y) { a = com.example.Strange(%s)  y = Mul(a, x) }"


def test_operator_without_rule_is_refused_by_name() -> None:
    model = parsed(CUSTOM % "x", more=', "com.example" : 1')
    model.graph.node[0].name = "here"
    with pytest.raises(
        UnsupportedOperatorError, match=r"Strange \(domain com.example\), node 'here'"
    ) as caught:
        vjp(model, ["x"], ["y"])
    assert (caught.value.op_type, caught.value.domain, caught.value.node_name) == (
        "Strange",
        "com.example",
        "here",
    )


def test_default_domain_has_two_spellings() -> None:
    model = parsed(SHARED)
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    x = np.ones((2, 3))
    feeds = {"x": x, "y.cotangent": x}
    np.testing.assert_array_equal(gradients(model, feeds, ["x"]), gradients(parsed(SHARED), feeds, ["x"]))


def test_operator_without_rule_off_the_path_does_not_matter() -> None:
    vjp(parsed(CUSTOM % "z", more=', "com.example" : 1'), ["x"], ["y"])


def test_no_silent_zero_through_integers() -> None:
    body = "q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s)"
    model = parsed(f"m (float[N] x, float s) => (float[N] y) {{ {body} }}")
    with pytest.raises(UnsupportedOperatorError, match="QuantizeLinear"):
        vjp(model, ["x"], ["y"])


def test_names_that_do_not_exist() -> None:
    model = parsed(SHARED)
    with pytest.raises(UnknownTensorError, match="wrt: the model has no tensor 'q'; it has 'x'"):
        vjp(model, ["q"], ["y"])
    with pytest.raises(UnknownTensorError, match="of: the model has no tensor 'q'; it has 'y'"):
        vjp(model, ["x"], ["q"])
    with pytest.raises(UnknownTensorError, match="outputs"):
        pruned(model, ["x.gradient"])
    with pytest.raises(ModelError, match="at least one"):
        vjp(model, [], ["y"])


def test_integers_have_no_gradient() -> None:
    model = parsed("m (int64[N] x) => (int64[N] y) { y = Neg(x) }")
    with pytest.raises(ModelError, match="'x' is not of a floating-point type"):
        vjp(model, ["x"], ["y"])


def test_names_that_are_taken() -> None:
    model = vjp(parsed(SHARED), ["x"], ["y"])
    with pytest.raises(ModelError, match=r"x\.gradient already; rename"):
        vjp(model, ["x"], ["y"])


def test_opset_that_cannot_be_converted() -> None:
    model = parsed(
        "m (float[N] x) => (float[N] y) { y = Upsample<height_scale = 2.0, width_scale = 2.0>(x) }",
        opset=1,
    )
    with pytest.raises(OpsetError, match="opset 1"):
        vjp(model, ["x"], ["y"])


# By itself, in as many channels as a block holds, and between convolutions, in onnxruntime's blocked layout.
BEHIND = {
    "alone": "m (float[N] x) => (float[N] y) { y = Clip(x, a, b) }",
    "channels": "m (float[N,16,1,1] x) => (float[N,16,1,1] y) { y = Clip(x, a, b) }",
    "convolutions": "m (float[N,16,1,1] x) => (float[N,16,1,1] y) "
    "{ c = Conv(x, one)  d = Clip(c, a, b)  y = Conv(d, one) }",
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(
    "bounds", [(0, 6), (0, 4), (0, 1), (0, 0.3), (0, 1e-20), (0, 3e38), (-1, 1), (0.1, 1e30), (-3e38, 2e-38)]
)
def test_masks_are_exact_up_to_the_next_number(bounds: tuple[float, float], behind: str) -> None:
    model = with_initializer(
        BEHIND[behind],
        a=np.float32(bounds[0]),
        b=np.float32(bounds[1]),
        one=np.eye(16, dtype=np.float32)[:, :, None, None],
    )
    low, high = np.array(bounds, np.float32)
    inner, outer = (
        np.nextafter([low, high], to, dtype=np.float32) for to in ([high, low], [-np.inf, np.inf])
    )
    if low == 0:
        # Subnormal numbers are those that the mask at 0 counts as the kink.
        inner[0] = np.finfo(np.float32).tiny
    shape = (6,) if behind == "alone" else (6, 16, 1, 1)
    points = np.array([low, high, *outer, *inner], np.float32).reshape(6, *(1 for _ in shape[1:]))
    feeds = {"x": np.tile(points, (1, *shape[1:])), "y.cotangent": np.ones(shape, np.float32)}
    (got,) = run_onnxruntime(pruned(vjp(model, ["x"], ["y"]), ["x.gradient"]), feeds)
    np.testing.assert_array_equal(got.reshape(6, -1).T, np.tile([0, 0, 0, 0, 1, 1], (got.size // 6, 1)))


@pytest.mark.parametrize("bounds", [(0, np.inf), (-np.inf, 6), (-np.inf, np.inf)])
def test_an_infinite_bound_stops_nothing(bounds: tuple[float, float]) -> None:
    model = with_initializer(BEHIND["alone"], a=np.float32(bounds[0]), b=np.float32(bounds[1]))
    feeds = {"x": np.array([-1, 1, 7], np.float32), "y.cotangent": np.ones(3, np.float32)}
    (got,) = run_onnxruntime(pruned(vjp(model, ["x"], ["y"]), ["x.gradient"]), feeds)
    np.testing.assert_array_equal(got, [bounds[0] < -1, 1, bounds[1] > 7])


def test_a_subnormal_distance_from_the_kink_counts_as_the_kink() -> None:
    model = parsed("m (float[N] x) => (float[N] y) { y = Relu(x) }")
    feeds = {"x": np.array([1e-45, 1e-40, -1e-45], np.float32), "y.cotangent": np.ones(3, np.float32)}
    (got,) = run_onnxruntime(pruned(vjp(model, ["x"], ["y"]), ["x.gradient"]), feeds)
    assert (got >= 0).all()
    assert (got <= 1).all()
    assert got[2] == 0


@pytest.mark.parametrize("options", ["kernel_shape = [2, 2], strides = [2, 2]", "kernel_shape = [3, 3]"])
def test_ties_in_pooling_are_not_counted_twice(options: str) -> None:
    model = parsed(f"m (float[1,1,4,4] x) => (float[1,1,P,Q] y) {{ y = MaxPool<{options}>(x) }}")
    x = np.ones((1, 1, 4, 4), np.float32)
    g = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    (got,) = run_onnxruntime(pruned(vjp(model, ["x"], ["y"]), ["x.gradient"]), {"x": x, "y.cotangent": g})
    assert got.sum() == g.sum()


def test_pruning_keeps_the_inputs_and_drops_the_rest() -> None:
    result = pruned(vjp(parsed(SHARED), ["x"], ["y"]), ["x.gradient"])
    assert [value.name for value in result.graph.input] == ["x", "y.cotangent"]
    assert [value.name for value in result.graph.output] == ["x.gradient"]
    assert "y" not in {name for node in result.graph.node for name in node.output}


def test_scan_over_a_batch_is_refused() -> None:
    model = parsed(
        """m (float[B,N] s, float[B,T,N] x) => (float[B,N] t, float[B,T,N] y) {
        t, y = Scan<num_scan_inputs = 1, body = b (float[N] a, float[N] c) => (float[N] d, float[N] e)
            { d = Add(a, c)  e = Identity(d) }>(, s, x) }""",
        opset=8,
    )
    with pytest.raises(OpsetError, match="Scan of opset 8 runs over a batch"):
        vjp(model, ["x"], ["y"])
