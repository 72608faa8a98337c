"""One line for each use of an operator, in a file by family: test_rules.py checks its gradient."""

from tests.onnx.rule_cases import (
    activation,
    convolution,
    cumulative,
    einsum,
    elementwise,
    indexing,
    linear_algebra,
    loss,
    normalization,
    pooling,
    recurrent,
    reduction,
    resize,
    sampling,
    scatter,
    shape,
    signal,
    spatial,
    trigonometry,
)
from tests.onnx.rule_cases.case import Case, case

__all__ = ["CASES", "Case", "case"]

CASES = [
    *activation.CASES,
    *convolution.CASES,
    *cumulative.CASES,
    *einsum.CASES,
    *elementwise.CASES,
    *indexing.CASES,
    *linear_algebra.CASES,
    *loss.CASES,
    *normalization.CASES,
    *pooling.CASES,
    *recurrent.CASES,
    *reduction.CASES,
    *sampling.CASES,
    *scatter.CASES,
    *resize.CASES,
    *shape.CASES,
    *signal.CASES,
    *spatial.CASES,
    *trigonometry.CASES,
]
