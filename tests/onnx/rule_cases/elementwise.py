import numpy as np

from tests.onnx.rule_cases.case import case, flags, ints, number, positive

CASES = [
    *(case(op, (2, 3)) for op in ("Identity", "Neg", "Abs", "Exp", "Erf", "Floor", "Sign")),
    *(case(op, positive(2, 3)) for op in ("Reciprocal", "Log", "Sqrt")),
    *(case(op, (2, 3), (2, 3)) for op in ("Add", "Sub", "Mul", "Max", "Min")),
    *(case(op, (2, 1, 3), (4, 1)) for op in ("Add", "Sub", "Mul", "Max", "Min")),
    *(case(op, (), (2, 3)) for op in ("Add", "Sub", "Mul", "Max", "Min")),
    case("Add", (3,), (1, 1)),
    case("Max", (2, 3), (3,), (1,)),
    case("Min", (2, 3)),
    case("Sum", (2, 3), (3,), (1,)),
    case("Div", (2, 1, 3), positive(4, 1)),
    case("Div", (3,), positive(2, 3)),
    case("Pow", positive(2, 3), (2, 3)),
    case("Pow", (2, 3), ints(2), fixed=(1,)),
    case("Pow", (2, 3), ints(3), fixed=(1,)),
    case("Pow", np.array([0.0, 1.5, -2.0]), ints(2, 0, 3), fixed=(1,)),
    case("Pow", positive(2, 1), (3,)),
    case("Where", flags(2, 3), (2, 3), (2, 3)),
    case("Where", flags(3), (2, 1), ()),
    case("Mean", (2, 3), (3,), (1,)),
    case("Mean", (2, 3)),
    case("Mod", (2, 3), positive(2, 3), fmod=1),
    case("Mod", (2, 1, 3), -0.3 * positive(4, 1), fmod=1),
    case("Range", number(0.5), number(3.1), number(0.5)),
    case("CastLike", (2, 3), (2,)),
    *(case(op, (2, 3)) for op in ("Ceil", "Round")),
]
