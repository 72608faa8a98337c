from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A tuple is the shape of a normal random input, an array is the input itself, None leaves it out.
Input = tuple[int, ...] | np.ndarray | None


@dataclass(frozen=True)
class Case:
    """A use of an operator.

    Integer inputs arrive at run time where the sizes are symbolic, except those whose places are ``fixed``.
    """

    op_type: str
    inputs: tuple[Input, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    opset: int = 20
    fixed: tuple[int, ...] = ()

    def __str__(self) -> str:
        shapes = ",".join(
            "-" if x is None else str(x if isinstance(x, tuple) else x.tolist()) for x in self.inputs
        )
        options = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op_type}({shapes};{options})".replace(" ", "")[:120]


def case(
    op_type: str,
    *inputs: Input,
    n_outputs: int = 1,
    opset: int = 20,
    fixed: tuple[int, ...] = (),
    **attributes: Any,
) -> Case:
    return Case(op_type, inputs, attributes, n_outputs, opset, fixed)


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
