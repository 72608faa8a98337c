"""Every line of the table of rules, in float64 against differences and in float32 on ONNX Runtime."""

import pytest
from mollikit_onnx.registry import registered
from mollikit_onnx.rules import load_rules

from tests.onnx.gradient_checks import check_case
from tests.onnx.rule_cases import CASES, Case


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
