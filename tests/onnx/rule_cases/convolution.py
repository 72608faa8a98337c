from tests.onnx.rule_cases.case import case

CASES = [
    case("Conv", (2, 3, 7), (4, 3, 3)),
    case("Conv", (2, 3, 5, 6), (4, 3, 3, 2), (4,)),
    case("Conv", (1, 2, 4, 3, 5), (3, 2, 2, 1, 3), pads=[1, 0, 1, 0, 0, 2]),
    case("Conv", (2, 3, 5, 5), (4, 3, 1, 1), (4,)),
    case("Conv", (2, 4, 5, 5), (6, 2, 3, 3), (6,), group=2, pads=[1, 1, 1, 1]),
    case("Conv", (2, 3, 7, 6), (3, 1, 3, 3), group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("Conv", (2, 3, 7, 6), (6, 1, 3, 3), group=3, strides=[2, 3], pads=[0, 1, 2, 1]),
    case("Conv", (2, 3, 7, 9), (3, 1, 5, 5), group=3, pads=[2, 2, 2, 2], dilations=[1, 2]),
    case("Conv", (2, 3, 8, 9), (4, 3, 3, 3), strides=[2, 3], pads=[1, 0, 0, 2], dilations=[2, 1]),
    case("Conv", (1, 4, 9, 8), (4, 2, 3, 2), group=2, strides=[3, 2], pads=[0, 1, 2, 1]),
    case("Conv", (1, 2, 6, 6), (2, 2, 1, 1), strides=[2, 2]),
    case("Conv", (1, 2, 5, 6), (2, 2, 2, 2), pads=[2, 0, 3, 1]),
    case("Conv", (1, 2, 7, 6), (2, 2, 3, 2), auto_pad="SAME_UPPER"),
    case("Conv", (1, 2, 7, 6), (2, 2, 3, 2), auto_pad="SAME_LOWER"),
    case("Conv", (1, 2, 7, 6), (2, 2, 3, 2), auto_pad="VALID", strides=[2, 1]),
]
