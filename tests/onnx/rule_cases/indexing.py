import numpy as np

from tests.onnx.rule_cases.case import case, ints, whole

CASES = [
    case("Gather", (4, 3), ints(2, 0, 2)),
    case("Gather", (4, 3), np.array([[1, -1], [0, 1]]), axis=1),
    case("Gather", (4, 3), whole(-2)),
    case("Gather", (2, 4, 3), whole(1), axis=1),
    case("GatherElements", (3, 3), np.array([[1, 2, 0], [2, 0, 0]]), axis=0),
    case("GatherND", (3, 2, 2), np.array([[0, 1], [2, 0], [0, 1]])),
]
