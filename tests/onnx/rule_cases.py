"""One line for each use of an operator: test_rules.py checks its gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A tuple is the shape of a normal random input, an array is the input itself, None leaves it out.
Input = tuple[int, ...] | np.ndarray | None


@dataclass(frozen=True)
class Case:
    op_type: str
    inputs: tuple[Input, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    n_outputs: int = 1

    def __str__(self) -> str:
        shapes = ",".join(
            "-" if x is None else str(x if isinstance(x, tuple) else x.tolist()) for x in self.inputs
        )
        options = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op_type}({shapes};{options})".replace(" ", "")[:120]


def case(op_type: str, *inputs: Input, n_outputs: int = 1, **attributes: Any) -> Case:
    return Case(op_type, inputs, attributes, n_outputs)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def whole(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float64)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(0.5, 2.0, shape)


def flags(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).random(shape) < 0.5


TIED = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, -1.0, 2.0, 2.0]])

ELEMENTWISE = [
    *(case(op, (2, 3)) for op in ("Identity", "Neg", "Abs", "Exp", "Sin", "Cos", "Erf", "Floor", "Sign")),
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
    case("Pow", (2, 3), ints(2)),
    case("Pow", (2, 3), ints(3)),
    case("Pow", np.array([0.0, 1.5, -2.0]), ints(2, 0, 3)),
    case("Pow", positive(2, 1), (3,)),
    case("Where", flags(2, 3), (2, 3), (2, 3)),
    case("Where", flags(3), (2, 1), ()),
]

ACTIVATIONS = [
    *(
        case(op, (3, 4))
        for op in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Gelu")
    ),
    case("LeakyRelu", (3, 4), alpha=0.3),
    case("Elu", (3, 4), alpha=0.7),
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

CONVOLUTIONS = [
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

NORMALIZATIONS = [
    case("BatchNormalization", (2, 3, 4, 2), (3,), (3,), (3,), positive(3)),
    case("BatchNormalization", (2, 3), (3,), (3,), (3,), positive(3), epsilon=0.1),
    case("Dropout", (2, 3)),
    case("Dropout", (2, 3), np.array(0.5, np.float32), np.array(False)),
]

POOLINGS = [
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

REDUCTIONS = [
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

LINEAR_ALGEBRA = [
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

SHAPES = [
    case("Flatten", (2, 3, 4)),
    case("Flatten", (2, 3, 4), axis=2),
    case("Reshape", (2, 3, 4), ints(0, -1)),
    case("Reshape", (2, 3, 4), ints(4, 6)),
    case("Squeeze", (2, 1, 3, 1)),
    case("Squeeze", (2, 1, 3, 1), ints(-1)),
    case("Unsqueeze", (2, 3), ints(0, -1)),
    case("Transpose", (2, 3, 4)),
    case("Transpose", (2, 3, 4), perm=[1, 2, 0]),
    case("Concat", (2, 3), (2, 1), (2, 2), axis=-1),
    case("Concat", (2, 3), (1, 3), axis=0),
    case("Split", (2, 6), ints(1, 3, 2), axis=1, n_outputs=3),
    case("Split", (5, 2), axis=0, num_outputs=2, n_outputs=2),
    case("Expand", (3, 1), ints(2, 1, 4)),
    case("Expand", (1, 3), ints(1, 1)),
    case("Pad", (2, 3), ints(0, 1, 2, 0)),
    case("Pad", (2, 3), ints(1, -1, 0, 2), number(0.5)),
    case("Pad", (2, 3), ints(1, 2), None, ints(1)),
    *(case("Pad", (3, 4), ints(1, 2, 0, 1), mode=mode) for mode in ("reflect", "edge", "wrap")),
    case("Slice", (5, 4), ints(1), ints(4)),
    case("Slice", (5, 4), ints(-3, 0), ints(100, -1), ints(0, 1)),
    case("Slice", (5, 4), ints(1), ints(9), ints(-1), ints(1)),
    case("Slice", (5, 4), ints(0), ints(5), ints(0), ints(2)),
    case("Slice", (5, 4), ints(-1), ints(-6), ints(0), ints(-2)),
]

INDEXING = [
    case("Gather", (4, 3), ints(2, 0, 2)),
    case("Gather", (4, 3), np.array([[1, -1], [0, 1]]), axis=1),
    case("Gather", (4, 3), whole(-2)),
    case("Gather", (2, 4, 3), whole(1), axis=1),
    case("GatherElements", (3, 3), np.array([[1, 2, 0], [2, 0, 0]]), axis=0),
    case("GatherND", (3, 2, 2), np.array([[0, 1], [2, 0], [0, 1]])),
]

CASES = [
    *ELEMENTWISE,
    *ACTIVATIONS,
    *CONVOLUTIONS,
    *NORMALIZATIONS,
    *POOLINGS,
    *REDUCTIONS,
    *LINEAR_ALGEBRA,
    *SHAPES,
    *INDEXING,
]
