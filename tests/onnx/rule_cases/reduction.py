from tests.onnx.rule_cases.case import case, ints

CASES = [
    case(
        op, (2, 3, 4), *([] if axes is None else [ints(*axes)]), keepdims=keepdims, noop_with_empty_axes=noop
    )
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
    for axes, keepdims, noop in (
        (None, 0, 0),
        (None, 1, 0),
        (None, 0, 1),
        ((1,), 0, 0),
        ((-1, 0), 1, 0),
        ((0, -1), 0, 0),
        ((), 1, 1),
    )
]
