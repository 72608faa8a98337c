from tests.onnx.rule_cases.case import case

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
]
