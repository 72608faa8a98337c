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
]
