"""Operators without a rule of their own, differentiated by the function bodies that define them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx.parser
import pytest
from mollikit_onnx import ModelError, pruned, rule, vjp
from mollikit_onnx.normal_form.functions import DEEPEST_CALL, MOST_NODES, expanded
from mollikit_onnx.normal_form.normal_form import normal_form
from onnx import ModelProto, TypeProto, helper

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime


def parsed(body: str, opset: int = 20, more: str = "") -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{more}]>\n{body}')


LOCAL = """m (double[N] x) => (double[N] y) { a = local.twice(x)  y = local.twice(a) }
<domain: "local", opset_import: ["" : 20, "local" : 1]> twice (a) => (b)
{ t = local.cube(a)  b = local.cube(t) }
<domain: "local", opset_import: ["" : 20]> cube (a) => (b) { t = Mul(a, a)  b = Mul(t, a) }"""


def test_functions_of_functions() -> None:
    model = parsed(LOCAL, more=', "local" : 1')
    before = model.SerializeToString()
    result = vjp(model, ["x"], ["y"])
    assert model.SerializeToString() == before
    assert not result.functions
    x = np.array([0.9, -1.1])
    (got,) = evaluator(result).run(["x.gradient"], {"x": x, "y.cotangent": np.ones(2)})
    np.testing.assert_allclose(got, 81 * x**80, rtol=1e-13)


def test_functions_written_for_another_operator_set() -> None:
    """The axes of ReduceMax were an attribute at 11."""
    model = parsed(
        """m (double[N,3] x) => (double[N] y) { y = local.largest(x) }
        <domain: "local", opset_import: ["" : 11]> largest (a) => (b)
        { b = ReduceMax<axes = [1], keepdims = 0>(a) }""",
        more=', "local" : 1',
    )
    x = np.array([[1.0, 3, 2], [5, 4, 0]])
    (got,) = evaluator(vjp(model, ["x"], ["y"])).run(["x.gradient"], {"x": x, "y.cotangent": np.ones(2)})
    np.testing.assert_array_equal(got, [[0, 1, 0], [1, 0, 0]])


def test_a_function_that_has_a_rule_is_kept() -> None:
    rule("cube", domain="local.ruled")(lambda node, g: [3 * g * node.x * node.x * 2])
    model = parsed(
        """m (double[N] x) => (double[N] y) { y = local.ruled.cube(x) }
        <domain: "local.ruled", opset_import: ["" : 20]> cube (a) => (b) { t = Mul(a, a)  b = Mul(t, a) }""",
        more=', "local.ruled" : 1',
    )
    result = vjp(model, ["x"], ["y"])
    assert [f.name for f in result.functions] == ["cube"]
    x = np.array([2.0])
    y, got = evaluator(result).run(None, {"x": x, "y.cotangent": np.ones(1)})
    assert (y, got) == (8, 24)  # twice the derivative, as the rule says


def calls(depth: int, fan: int) -> ModelProto:
    """Functions f0, f1, ... each of which calls the next ``fan`` times in a row."""
    model = parsed("m (double[N] x) => (double[N] y) { y = local.f0(x) }", more=', "local" : 1')
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    for k in range(depth):
        op, domain = (f"f{k + 1}", "local") if k + 1 < depth else ("Sin", "")
        names = ["a", *(f"t{j}" for j in range(fan - 1)), "b"]
        nodes = [helper.make_node(op, [i], [o], domain=domain) for i, o in pairwise(names)]
        model.functions.append(helper.make_function("local", f"f{k}", ["a"], ["b"], nodes, imports))
    return model


def test_limits_of_functions() -> None:
    assert len(vjp(calls(DEEPEST_CALL, 1), ["x"], ["y"]).graph.node) < 10
    with pytest.raises(ModelError, match=f"more than {DEEPEST_CALL} deep"):
        vjp(calls(DEEPEST_CALL + 1, 1), ["x"], ["y"])
    with pytest.raises(ModelError, match=f"more than {DEEPEST_CALL} deep"):
        vjp(calls(5000, 1), ["x"], ["y"])
    with pytest.raises(ModelError, match=f"more than {MOST_NODES} nodes"):
        vjp(calls(40, 2), ["x"], ["y"])


def test_the_depth_is_that_of_the_deepest_call_whatever_the_order() -> None:
    model = calls(DEEPEST_CALL + 1, 1)
    del model.graph.node[:]
    names = [f"f{k}" for k in (60, 30, 0)]
    model.graph.node.extend(
        helper.make_node(name, ["x"], [f"y{name}" if k < 2 else "y"], domain="local")
        for k, name in enumerate(names)
    )
    with pytest.raises(ModelError, match="deep"):
        vjp(model, ["x"], ["y"])


def test_a_function_that_calls_itself() -> None:
    model = calls(3, 1)
    model.functions[2].node[0].domain, model.functions[2].node[0].op_type = "local", "f1"
    with pytest.raises(ModelError, match=r"function 'f1' .* calls itself"):
        vjp(model, ["x"], ["y"])


def written_out(body: str, opset: int, op_type: str) -> ModelProto:
    """The model with every node of one operator replaced by its body."""
    model = onnx.shape_inference.infer_shapes(parsed(body, opset))
    types: dict[str, TypeProto] = {v.name: v.type for v in (*model.graph.input, *model.graph.value_info)}
    result = expanded(model, types, lambda node: node.op_type == op_type)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("body", "opset", "op_type"),
    [
        ("m (double[N,4] x) => (double[N,4] y) { y = Celu<alpha = 0.5>(x) }", 28, "Celu"),
        ("m (double[N,4] x) => (double[N,4] y) { y = Celu(x) }", 28, "Celu"),
        ("m (double[N,4] x, double h) => (double[N,4] y) { y = Clip(x, , h) }", 20, "Clip"),
        ("m (double[N,4] x) => (double[N,4] y) { y = LogSoftmax<axis = 1>(x) }", 24, "LogSoftmax"),
        (
            "m (double[N,4] x, double[4] s) => (double[N,4] y) { y = LayerNormalization(x, s) }",
            18,
            "LayerNormalization",
        ),
    ],
)
def test_bodies_compute_what_the_operator_does(body: str, opset: int, op_type: str) -> None:
    rng = np.random.default_rng(0)
    model = parsed(body, opset)
    shapes = [[d.dim_value or 3 for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    feeds = {v.name: rng.standard_normal(s) for v, s in zip(model.graph.input, shapes, strict=True)}
    (expected,) = evaluator(model).run(None, feeds)
    (got,) = evaluator(written_out(body, opset, op_type)).run(None, feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_bodies_in_branches_know_their_types() -> None:
    body = """m (float[N,4] x, bool c) => (float[N,4] y) {
        y = If(c) <then_branch = t () => (float[N,4] a) { h = Neg(x)  a = Softmax<axis = 1>(h) },
                   else_branch = e () => (float[N,4] b) { b = Identity(x) }> }"""
    model = written_out(body, 20, "Softmax")
    then = next(a.g for a in model.graph.node[0].attribute if a.name == "then_branch")
    assert "Softmax" not in {node.op_type for node in then.node}
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    (expected,) = run_onnxruntime(parsed(body), {"x": x, "c": np.array(True)})
    (got,) = run_onnxruntime(model, {"x": x, "c": np.array(True)})
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_operators_newer_than_the_runtime_are_written_out() -> None:
    model = parsed("m (float[N,4] x, float[N,4] z) => (float[N,4] y) { y = SwiGLU<alpha = 0.5>(x, z) }", 28)
    result = vjp(model, ["x", "z"], ["y"])
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 4)) for name in ("x", "z")}
    narrow = {n: a.astype(np.float32) for n, a in feeds.items()}
    got = run_onnxruntime(result, {**narrow, "y.cotangent": np.ones((2, 4), np.float32)})
    sigmoid = 1 / (1 + np.exp(-0.5 * feeds["x"]))
    np.testing.assert_allclose(got[0], feeds["x"] * sigmoid * feeds["z"], rtol=1e-5)
    np.testing.assert_allclose(got[2], feeds["x"] * sigmoid, rtol=1e-5)
    slope = sigmoid * (1 + 0.5 * feeds["x"] * (1 - sigmoid)) * feeds["z"]
    np.testing.assert_allclose(got[1], slope, rtol=1e-5, atol=1e-6)


def test_a_branch_that_is_known_beforehand_takes_the_place_of_its_if() -> None:
    """Both Ifs use the same names inside, one holds another that captures them."""
    inner = """If(d) <then_branch = ti () => (float[N] q) { q = Mul(a, k) },
                      else_branch = ei () => (float[N] q) { q = Neg(a) }>"""
    model = parsed(f"""m (float[N] x, bool d) => (float[N] y) {{
        rank = Shape<start = 0>(x)
        size = Size(rank)
        one = Constant<value_int = 1>()
        flat = Equal(size, one)
        h = If(flat) <then_branch = t1 () => (float[N] c) <float k = {{3.0}}>
                          {{ a = Sin(x)  b = {inner}  c = Identity(b) }},
                      else_branch = e1 () => (float[N] c) {{ c = Neg(x) }}>
        not = Not(flat)
        y = If(not) <then_branch = t2 () => (float[N] c) {{ c = Neg(x) }},
                     else_branch = e2 () => (float[N] c) {{ a = Mul(h, h)  c = Identity(a) }}> }}""")
    form = normal_form(model, ["x"], ["y"])
    assert [node.op_type for node in form.model.graph.node].count("If") == 1
    x = np.array([0.3, -1.0], np.float32)
    for condition, factor in ((True, 3), (False, -1)):
        (expected,) = run_onnxruntime(model, {"x": x, "d": np.array(condition)})
        np.testing.assert_allclose(expected, (factor * np.sin(x)) ** 2, rtol=1e-5)
        result = pruned(vjp(model, ["x"], ["y"]), ["y", "x.gradient"])
        feeds = {"x": x, "d": np.array(condition), "y.cotangent": np.ones(2, np.float32)}
        y, got = run_onnxruntime(result, feeds)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        np.testing.assert_allclose(got, 2 * factor**2 * np.sin(x) * np.cos(x), rtol=1e-5)
