from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mollikit.outputs import form


def tensor_output(output: Any) -> Any:
    """Return the output if it is a tensor with a batch axis.

    Raises
    ------
    TypeError
        It is not a tensor.
    ValueError
        It is a scalar, or its rank is not known.
    """
    if not tf.is_tensor(output):
        raise TypeError(f"The model returns {form(output)}: choose one tensor by output=")
    if output.shape.rank is None:
        raise ValueError(
            "The model does not say how many axes its output has: give it a shape by tf.ensure_shape, "
            "or give a target function"
        )
    if output.shape.rank == 0:
        raise ValueError("the output is a scalar: its first axis must be the batch")
    return output


def check_floats(tensor: Any, what: str) -> None:
    """Raise TypeError where a tensor is not of floats."""
    if not tensor.dtype.is_floating:
        raise TypeError(f"{what} is of {tensor.dtype.name}, which has no gradient: choose one of floats")


def by_function(output: Any, target: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Return what a target function gives for the batch, and for its first row alone.

    Raises
    ------
    ValueError, TypeError
        It does not give one float a row.
    """
    values = target(output)
    if not tf.is_tensor(values) or values.shape.rank not in (1, None):
        raise ValueError(
            f"the target function gave {form(values)}: it must give one scalar a row, a tensor of shape (m,)"
        )
    check_floats(values, "the target function's result")
    return values, target(tf.nest.map_structure(_first_row, output))


def _first_row(tensor: Any) -> Any:
    # While tracing, an axis whose size is known is not the batch.
    batch = tf.is_tensor(tensor) and tensor.shape.rank and tensor.shape[0] is None
    return tensor[:1] if batch else tensor
