import numpy as np

from tests.onnx.rule_cases.case import case, ints, positive

ZEROS = np.array([[1.5, 0.0, 2.0], [0.0, 0.5, 0.0], [0.7, 2.0, -0.4]])

CASES = [
    *(
        case(
            op,
            (2, 3, 4),
            *([] if axes is None else [ints(*axes)]),
            keepdims=keepdims,
            noop_with_empty_axes=noop,
        )
        for op in (
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
        )
        for axes, keepdims, noop in (
            (None, 0, 0),
            (None, 1, 0),
            (None, 0, 1),
            ((1,), 0, 0),
            ((-1, 0), 1, 0),
            ((0, -1), 0, 0),
            ((), 1, 1),
        )
    ),
    *(
        case("ReduceLogSum", positive(2, 3, 4), *axes, keepdims=keepdims)
        for axes, keepdims in (((), 0), ((ints(1),), 0), ((ints(0, -1),), 1))
    ),
    *(case("ReduceProd", ZEROS, *axes, keepdims=0) for axes in ((), (ints(0),), (ints(1),))),
    case("ReduceMax", (2, 3), ints(1), opset=26),
    case("ReduceLogSumExp", 300 * positive(2, 3), ints(1)),
]
