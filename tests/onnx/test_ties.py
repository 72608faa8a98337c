"""Where several elements are the largest, or equal, and what has their cotangent; on ONNX Runtime."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import pruned, vjp

from tests.onnx.gradient_checks import run_onnxruntime


@pytest.mark.parametrize(
    ("nodes", "x", "g", "expected"),
    [
        # Shared between the equal ones.
        ("y = ReduceMax<keepdims = 0>(x)", [1, 3, 3, 2], 2, [0, 1, 1, 0]),
        ("y = ReduceMin<keepdims = 0>(x)", [1, 3, 1, 1], 3, [1, 0, 1, 1]),
        # Data 5, 1, 3, and updates 3 to the first, 3 and 3 to the last.
        (
            "two = Constant<value_ints = [2, 2, 2]>()  w = Gather(x, two) "
            "p = Constant<value_ints = [0, 2, 2]>()  l = Constant<value_ints = [-1]>()  k = Unsqueeze(p, l) "
            "y = ScatterND<reduction = \"max\">(x, k, w)",
            [5, 1, 3], [1, 1, 3], [1, 1, 3],
        ),
        # The first of them, or those that ONNX Runtime chose.
        ("y, i = Unique<sorted = 1>(x)", [3, 1, 3, 1], [1, 2], [2, 1, 0, 0]),
        ("y, i = Unique<sorted = 0>(x)", [3, 1, 3, 1], [1, 2], [1, 2, 0, 0]),
        ("k = Constant<value_ints = [2]>()  y, i = TopK(x, k)", [3, 3, 3], [1, 2], [1, 2, 0]),
        # A product with one zero, and with two.
        ("y = ReduceProd<keepdims = 0>(x)", [2, 0, 3], 1, [0, 6, 0]),
        ("y = ReduceProd<keepdims = 0>(x)", [2, 0, 0], 1, [0, 0, 0]),
        # Norms at 0.
        ("y = ReduceL2<keepdims = 0>(x)", [0, 0], 1, [0, 0]),
        ("y = ReduceL1<keepdims = 0>(x)", [0, -2], 1, [0, -1]),
        ("y = ReduceLogSumExp<keepdims = 0>(x)", [-np.inf, -np.inf], 1, [0, 0]),
        ("y = ReduceLogSumExp<keepdims = 0>(x)", [-np.inf, 0], 1, [0, 1]),
    ],
)  # fmt: skip
def test_ties(nodes: str, x: list[float], g: list[float] | float, expected: list[float]) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 20]> m (float[N] x) => (float y) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": np.array(x, np.float32), "y.cotangent": np.array(g, np.float32)}
    (got,) = run_onnxruntime(pruned(vjp(model, ["x"], ["y"]), ["x.gradient"]), feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
