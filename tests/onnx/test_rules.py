"""Every line of the table of rules, in float64 against differences and in float32 on ONNX Runtime."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import UnsupportedOperatorError, vjp
from mollikit_onnx.registry import registered
from mollikit_onnx.rules import load_rules

from tests.onnx.gradient_checks import check_case, drawn, one_node_model, run_onnxruntime
from tests.onnx.rule_cases import CASES, Case, case
from tests.onnx.rule_cases.case import ints


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
def test_gradient_is_that_of_differences(case: Case, symbolic: bool) -> None:
    check_case(case, symbolic=symbolic)


def test_every_rule_has_a_line() -> None:
    load_rules()
    # Cast changes the dtype that the differences are taken in; test_vjp.py has it. Rounding has no
    # differences; test_quantization.py has it. test_control_flow.py has graphs in nodes.
    elsewhere = {"Cast", "ConvInteger", "DequantizeLinear", "MatMulInteger", "QuantizeLinear"}
    elsewhere |= {"If", "Loop", "Scan"}
    assert {op for domain, op in registered() if not domain} - elsewhere <= {case.op_type for case in CASES}


ROIS = np.array([[0.4, 0.7, 2.9, 3.6]])
REFUSED = [
    (case("RoiAlign", (1, 2, 4, 4), ROIS, ints(0), mode="max"), "mode max is not covered"),
    (case("MaxRoiPool", (1, 2, 4, 4), np.array([[0.0, 0, 0, 2, 2]]), pooled_shape=[2, 2]), "no rule"),
    (case("ConvTranspose", (1, 2, 4), (2, 2, 2), auto_pad="SAME_UPPER", strides=[3]), "write the pads down"),
    (case("ConvTranspose", (1, 2, 4), (2, 2, 3), output_shape=[3], strides=[2]), "output_shape is below"),
    (
        case(
            "Resize",
            (1, 1, 3, 4),
            None,
            None,
            ints(7, 8),
            mode="linear",
            axes=[2, 3],
            keep_aspect_ratio_policy="not_larger",
        ),
        "for mode nearest alone",
    ),
    (case("GridSample", (1, 2, 3, 4, 2), (1, 2, 2, 3, 3), mode="cubic"), "two dimensions alone"),
]


@pytest.mark.parametrize(("example", "reason"), REFUSED, ids=[str(example) for example, _ in REFUSED])
def test_what_is_not_covered_is_refused_by_name(example: Case, reason: str) -> None:
    model = one_node_model(example, drawn(example), np.float32, symbolic=False)
    with pytest.raises(UnsupportedOperatorError, match=reason) as caught:
        vjp(model, ["x0"], ["y0"])
    assert (caught.value.op_type, caught.value.node_name) == (example.op_type, "the_node")


def test_resize_with_respect_to_its_scales_is_refused() -> None:
    body = 'm (float[1,1,3,4] x, float[4] s) => (float[A,B,C,D] y) { y = Resize<mode = "linear">(x, , s) }'
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {body}')
    vjp(model, ["x"], ["y"])
    with pytest.raises(UnsupportedOperatorError, match="the region or the scales"):
        vjp(model, ["s"], ["y"])


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool", "MaxPool"])
def test_pooling_of_any_number_of_channels(operator: str) -> None:
    node = f"y = {operator}<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1]>(x)"
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
    got = []
    for shape in ("N,C,H,W", "2,3,6,5"):
        body = f"m (float[{shape}] x) => (float[A,B,P,Q] y) {{ {node} }}"
        model = vjp(
            onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {body}'), ["x"], ["y"]
        )
        g = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
        got.append(run_onnxruntime(model, {"x": x, "y.cotangent": g})[1])
    np.testing.assert_allclose(*got, rtol=1e-5, atol=1e-5)
