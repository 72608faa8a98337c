import numpy as np

from tests.onnx.rule_cases.case import case, positive

CASES = [
    case("BatchNormalization", (2, 3, 4, 2), (3,), (3,), (3,), positive(3)),
    case("BatchNormalization", (2, 3), (3,), (3,), (3,), positive(3), epsilon=0.1),
    case("Dropout", (2, 3)),
    case("Dropout", (2, 3), np.array(0.5, np.float32), np.array(False)),
]
