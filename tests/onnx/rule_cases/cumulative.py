import numpy as np

from tests.onnx.rule_cases.case import case, whole

ZEROS = np.array([[1.5, 0.0, 2.0, -1.0], [0.0, 0.5, 0.0, 3.0], [0.7, 2.0, -0.4, 0.0]])

CASES = [
    *(
        case("CumSum", (3, 4, 2), whole(axis), exclusive=exclusive, reverse=reverse)
        for axis, exclusive, reverse in ((0, 0, 0), (1, 1, 0), (-1, 0, 1), (-2, 1, 1))
    ),
    *(
        case("CumProd", x, whole(axis), exclusive=exclusive, reverse=reverse, opset=26)
        for x, axis in (((3, 4, 2), 1), (ZEROS, -1), (ZEROS, 0))
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
]
