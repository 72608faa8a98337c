import numpy as np

from tests.onnx.rule_cases.case import case, ints

UNPOOLED = np.array([[[[5, 7], [13, 10]]]])

CASES = [
    case("GlobalAveragePool", (2, 3, 4, 2)),
    case("GlobalMaxPool", (2, 3, 4, 2)),
    case("AveragePool", (2, 3, 7), kernel_shape=[3]),
    case("AveragePool", (2, 3, 4, 6), kernel_shape=[2, 3], strides=[2, 3]),
    case("AveragePool", (2, 3, 6, 7), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("AveragePool", (1, 2, 6, 7), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", (1, 2, 6, 7), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("AveragePool", (1, 2, 5, 5), kernel_shape=[2, 2], dilations=[2, 1]),
    case("AveragePool", (1, 2, 4, 3, 4), kernel_shape=[2, 2, 2], strides=[2, 1, 2]),
    case("MaxPool", (2, 3, 7), kernel_shape=[3]),
    case("MaxPool", (2, 3, 4, 6), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", (1, 2, 7, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", (1, 2, 7, 6), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", (1, 2, 7, 6), kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", (1, 2, 4, 3, 4), kernel_shape=[2, 2, 2], strides=[2, 1, 2]),
    case("MaxPool", (2, 2, 4, 3), kernel_shape=[2, 2], storage_order=1),
    case("MaxPool", (1, 2, 5, 3), kernel_shape=[2, 2], storage_order=1, auto_pad="SAME_UPPER"),
    *(case("GlobalLpPool", (2, 3, 4, 2), p=p) for p in (1, 2, 3)),
    *(case("LpPool", (2, 3, 7), kernel_shape=[3], strides=[2], p=p) for p in (1, 2, 3)),
    case("LpPool", (1, 2, 4, 6), kernel_shape=[2, 3], strides=[2, 3]),
    case("LpPool", (1, 2, 5, 6), kernel_shape=[2, 3], pads=[1, 0, 0, 2], dilations=[2, 1]),
    case("LpPool", (1, 2, 6, 5), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("LpPool", (1, 1, 4, 3, 3), kernel_shape=[2, 2, 2], auto_pad="SAME_LOWER"),
    case("MaxUnpool", (1, 1, 2, 2), UNPOOLED, kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxUnpool", (1, 1, 2, 2), UNPOOLED, ints(1, 1, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxUnpool", (1, 1, 2, 2), np.array([[[[5, 7], [5, 10]]]]), kernel_shape=[2, 2], strides=[2, 2]),
    *(
        case(op, (2, 2, 5, 4), kernel_shape=[2, 3], auto_pad=auto)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
]
