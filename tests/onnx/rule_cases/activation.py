from tests.onnx.rule_cases.case import case, number, positive

CASES = [
    *(
        case(op, (3, 4))
        for op in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Gelu")
    ),
    case("LeakyRelu", (3, 4), alpha=0.3),
    case("Elu", (3, 4), alpha=0.7),
    *(
        case(op, (3, 4))
        for op in ("Selu", "Celu", "ThresholdedRelu", "Softsign", "Mish", "Hardmax", "Shrink")
    ),
    case("Selu", (3, 4), alpha=0.5, gamma=1.5),
    case("Celu", (3, 4), alpha=2.0),
    case("Celu", (3, 4), alpha=-0.7),
    case("ThresholdedRelu", (3, 4), alpha=-0.4),
    case("Shrink", (3, 4), lambd=0.3, bias=0.2),
    case("Shrink", (3, 4), lambd=-0.3, bias=0.2),
    case("Swish", (3, 4), opset=24),
    case("Swish", (3, 4), alpha=0.4, opset=24),
    case("PRelu", (2, 3, 4), (3, 1)),
    case("PRelu", (2, 3, 4), (1,)),
    case("PRelu", (2, 3), (2, 3)),
    case("HardSigmoid", (3, 4)),
    case("HardSigmoid", (3, 4), alpha=0.6, beta=0.3),
    case("Gelu", (3, 4), approximate="tanh"),
    case("Clip", (3, 4)),
    case("Clip", (3, 4), number(-0.5)),
    case("Clip", (3, 4), None, number(0.5)),
    case("Clip", (3, 4), number(-0.5), number(0.5)),
    case("Clip", 4 * positive(3, 4) - 4, number(0), number(6)),
    *(case(op, (2, 3, 4), axis=axis) for op in ("Softmax", "LogSoftmax") for axis in (-1, 0, 1)),
]
