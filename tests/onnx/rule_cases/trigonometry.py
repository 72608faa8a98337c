import numpy as np

from tests.onnx.rule_cases.case import case, positive

INSIDE = np.array([[-0.9, -0.2, 0.0], [0.3, 0.6, 0.95]])

CASES = [
    *(case(op, (2, 3)) for op in ("Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh", "Asinh")),
    *(case(op, INSIDE) for op in ("Asin", "Acos", "Atanh")),
    case("Acosh", 0.7 + positive(2, 3)),
]
