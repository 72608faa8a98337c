import numpy as np

from tests.onnx.rule_cases.case import case

CASES = [
    *(
        case("MatMul", left, right)
        for left, right in (
            ((2, 3), (3, 4)),
            ((3,), (3,)),
            ((3,), (3, 4)),
            ((2, 3), (3,)),
            ((5, 2, 3), (3, 4)),
            ((5, 2, 3), (3,)),
            ((3,), (5, 3, 4)),
            ((2, 3), (5, 3, 4)),
            ((5, 1, 2, 3), (6, 3, 4)),
            ((5, 2, 3), (1, 3, 4)),
            ((5, 6, 2, 3), (3, 4)),
        )
    ),
    *(
        case(
            "Gemm",
            (3, 2) if ta else (2, 3),
            (4, 3) if tb else (3, 4),
            c,
            transA=ta,
            transB=tb,
            alpha=0.5,
            beta=2.0,
        )
        for ta in (0, 1)
        for tb in (0, 1)
        for c in ((4,), (2, 1), None)
    ),
    case("Gemm", (2, 3), (3, 4), ()),
    case("Gemm", (2, 3), (3, 4), (2, 4), beta=0.0),
    case("Gemm", (2, 3), (3, 4), (1,), alpha=-1.0),
    *(case("Det", shape) for shape in ((3, 3), (1, 1), (2, 2, 2), (2, 1, 4, 4))),
    case("Det", np.ones((3, 3))),
    case("Det", np.array([[1.0, 2, 3], [2, 4, 6], [1, 0, 1]])),
]
