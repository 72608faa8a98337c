from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from mollikit_onnx import OnnxOracle, vjp
from mollikit_onnx.graphs.pruning import pruned
from mollikit_onnx.runtime.repetition import copy_of, repeated
from mollikit_onnx.runtime.selection import COORDINATES, SELECTED, select_in_graph
from mollikit_onnx.runtime.signature import Signature
from onnx.reference import ReferenceEvaluator

from tests.onnx import models


def repeated_gradient(model, output, count):
    selected = select_in_graph(vjp(model, ["x"], [output]), Signature.of(model).outputs[output])
    return repeated(pruned(selected, ["x.gradient", SELECTED]), COORDINATES, count)


def test_the_forward_pass_is_in_the_graph_once_and_weights_too():
    model = models.mlp()
    (output,) = (value.name for value in model.graph.output)
    alone, several = (repeated_gradient(model, output, count) for count in (1, 5))

    def named(graph, names):
        return sum(node.output[0] in names for node in graph.graph.node)

    forward = {name for node in model.graph.node for name in node.output}
    assert named(alone, forward) == named(several, forward) == len(model.graph.node)
    assert [w.name for w in several.graph.initializer] == [w.name for w in alone.graph.initializer]
    assert len(several.graph.node) < 5 * len(alone.graph.node)


def branching() -> onnx.ModelProto:
    """Outputs (m, 2) behind an If, whose branches read from outside."""
    return onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        branching (float[n, 2] x, bool[1] flag) => (float[n, 2] y)
        {
            s = Sin(x)
            y = If (flag) <
                then_branch = g1 () => (float[n, 2] a) { t = Mul(s, x)  a = Exp(t) },
                else_branch = g2 () => (float[n, 2] b) { t2 = Mul(s, s)  b = Mul(t2, x) }
            >
        }""")


@pytest.mark.parametrize("flag", [True, False])
def test_reverse_passes_through_a_branch_are_told_apart(flag):
    """d/dx exp(x sin x) or x sin^2 x, for the first output and for the second."""
    model = repeated_gradient(branching(), "y", 3)
    onnx.checker.check_model(model)
    x = np.array([[0.3, -0.7], [1.1, 0.4]], np.float32)
    targets = [1, 0, 1]
    feed = {"x": x, "flag": np.array([flag])}
    feed |= {copy_of(COORDINATES, k): np.array([[0, t], [1, t]]) for k, t in enumerate(targets)}
    found = ReferenceEvaluator(model).run([copy_of("x.gradient", k) for k in range(3)], feed)
    s, c = np.sin(x), np.cos(x)
    truth = np.exp(x * s) * (s + x * c) if flag else s**2 + 2 * x * s * c
    for target, gradient in zip(targets, found, strict=True):
        np.testing.assert_allclose(gradient, truth * np.eye(2)[target], rtol=1e-5)


def test_an_output_that_no_target_reaches_has_zeros_for_each():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        apart (float[n, 2] x, float[n, 2] z) => (float[n, 2] y) { y = Mul(x, x) }""")
    oracle = OnnxOracle(model, wrt=("x", "z"))
    points = {"x": np.ones((3, 2), np.float32), "z": np.ones((3, 2), np.float32)}
    _, gradients = oracle.values_and_gradients(points, [1, 0])
    assert [g["x"][0].tolist() for g in gradients] == [[0, 2], [2, 0]]
    assert all(not g["z"].any() for g in gradients)


def test_a_target_out_of_range_is_refused_before_a_session_is_built():
    oracle = OnnxOracle(models.mlp(), target=3)
    with pytest.raises(ValueError, match="target 99 is out of range"):
        oracle.values_and_gradients(np.zeros((2, 6), np.float32), [0, 99])
    assert not oracle._sessions._several
