"""Sequences and optionals whose members are known are written out as tensors."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import UnsupportedOperatorError, vjp
from onnx import ModelProto

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime

AT = "one = Constant<value_int = 1>()  last = Constant<value_int = -1>()  three = Constant<value_int = 3>()"
SIZES = "sizes = Constant<value_ints = [2, 1, 3]>()"


def model_of(nodes: str, shape: str = "6,2") -> ModelProto:
    nodes = f"{AT} {SIZES} {nodes}  z = Mul(r, r)  y = ReduceSum<keepdims = 0>(z)"
    body = f"m (double[{shape}] x) => (double y) {{ {nodes} }}"
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{body}')


X = np.arange(12.0).reshape(6, 2)


def square_of(*parts: object) -> np.ndarray:
    """Gradient of the sum of squares of parts of x."""
    got = np.zeros_like(X)
    for part in parts:
        got[part] += 2 * X[part]
    return got


ALL = square_of(slice(None))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("s = SplitToSequence<axis = 0>(x, sizes)  r = SequenceAt(s, one)", square_of(2)),
        ("s = SplitToSequence<axis = 0>(x, sizes)  r = SequenceAt(s, last)", square_of(slice(3, 6))),
        ("s = SplitToSequence<axis = 0, keepdims = 0>(x)  r = SequenceAt(s, last)", square_of(5)),
        ("s = SplitToSequence<axis = 0>(x)  r = SequenceAt(s, three)", square_of(3)),
        ("s = SplitToSequence<axis = 0>(x)  r = SequenceAt(s, last)", square_of(5)),
        ("s = SplitToSequence<axis = 0>(x, three)  r = SequenceAt(s, one)", square_of(slice(3, 6))),
        ("s = SplitToSequence<axis = 0>(x, three)  r = ConcatFromSequence<axis = 0>(s)", ALL),
        ("s = SplitToSequence(x, sizes)  t = SequenceErase(s, one)  r = ConcatFromSequence<axis = 0>(t)",
         square_of(slice(0, 2), slice(3, 6))),
        ("e = SequenceEmpty<dtype = 11>()  s = SequenceInsert(e, x)  t = SequenceInsert(s, x, last) "
         "r = ConcatFromSequence<axis = -1, new_axis = 1>(t)", 2 * ALL),
        ("s = SequenceConstruct(x, x)  i = Identity(s)  n = SequenceLength(i)  f = CastLike(n, x) "
         "r = Mul(x, f)",
         4 * ALL),
        ("o = Optional(x)  r = OptionalGetElement(o)", ALL),
        ("s = SequenceConstruct(x)  o = Optional(s)  t = OptionalGetElement(o)  u = SequenceErase(t) "
         "v = SequenceInsert(u, x)  r = SequenceAt(v, last)", ALL),
        ("r = OptionalGetElement(x)", ALL),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["6,2", "N,2"])
def test_members_at_constant_positions(nodes: str, expected: np.ndarray, shape: str) -> None:
    model = model_of(nodes, shape)
    gradient = vjp(model, ["x"], ["y"])
    assert not [n.op_type for n in gradient.graph.node if "Sequence" in n.op_type or "Optional" in n.op_type]
    (y,) = run_onnxruntime(model, {"x": X})
    for here, got in (
        evaluator(gradient).run(None, {"x": X, "y.cotangent": np.array(1.0)}),
        run_onnxruntime(gradient, {"x": X, "y.cotangent": np.array(1.0)}),
    ):
        np.testing.assert_allclose(here, y, rtol=1e-13)
        np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize(
    "nodes",
    [
        "k = Shape<end = 1>(x)  p = Squeeze(k)  q = Sub(p, p)  s = SequenceConstruct(x, x) "
        "r = SequenceAt(s, q)",
        "s = SplitToSequence(x, three)  r = SequenceAt(s, last)",
    ],
)
def test_positions_that_are_computed_are_refused(nodes: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match="Sequence"):
        vjp(model_of(nodes, "N,2"), ["x"], ["y"])
