import numpy as np

from tests.onnx.rule_cases.case import Case, case, ints

ROWS = np.array([[0, 2, 1, 0], [1, 0, 0, 2]])
TWICE = np.array([[0, 2, 1, 0], [1, 2, 0, 0], [-1, 0, 1, 2]])
PLACES = np.array([[2, 1], [0, 3], [-1, 0]])
SAME = np.array([[2, 1], [2, 1], [0, 0], [2, 1]])


def with_zeros(*shape: int) -> np.ndarray:
    """Every third element is zero; the ties that these make are not differentiable in max and min."""
    x = np.random.default_rng(3).standard_normal(shape)
    x.ravel()[::3] = 0
    return x


def _scatters(reduction: str, opset: int) -> list[Case]:
    options = {"reduction": reduction, "opset": opset}
    alone = reduction == "none"
    return [
        case("ScatterElements", (3, 4), ROWS, (2, 4), **options)
        if alone
        else case("ScatterElements", (3, 4), TWICE, (3, 4), **options),
        case("ScatterElements", (3, 4), np.array([[3, 0]]), (1, 2), axis=-1, **options),
        case("ScatterND", (3, 4), PLACES if alone else SAME, (3 if alone else 4,), **options),
        case("ScatterND", (3, 4), np.array([[1], [-1]]), (2, 4), **options),
    ]


CASES = [
    *(c for reduction in ("none", "add", "mul", "max", "min") for c in _scatters(reduction, 18)),
    *(c for reduction in ("none", "add", "mul") for c in _scatters(reduction, 16)),
    case("ScatterElements", with_zeros(3, 4), TWICE, with_zeros(3, 4), reduction="mul"),
    case("ScatterND", with_zeros(3, 4), SAME, with_zeros(4), reduction="mul"),
    case("ScatterND", with_zeros(3, 4), SAME, np.array([0.0, 2.0, 3.0, -1.0]), reduction="mul"),
    case("TensorScatter", (2, 5, 3), (2, 2, 3), ints(0, 3), opset=24),
    case("TensorScatter", (2, 2, 4, 3), (2, 2, 3, 3), ints(2, 3), mode="circular", opset=24),
    case("TensorScatter", (2, 4), (2, 2), None, axis=-1, opset=24),
]
