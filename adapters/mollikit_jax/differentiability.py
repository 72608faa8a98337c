from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend
from jax import numpy as jnp


def refuse_zeros_by_construction(
    values: Callable[[Mapping[str, Any]], Any], points: Mapping[str, Any]
) -> None:
    """Raise where a gradient is zero because nothing differentiable leads from an input to the values.

    JAX then gives zeros without a word. They are told from zeros that happen to come out by the program
    that pulls a cotangent back: its result depends on the cotangent exactly where a derivative was found.

    Parameters
    ----------
    values : callable
        From points by name to the values (m,).
    points : mapping
        Arrays or their shapes and dtypes.

    Raises
    ------
    ValueError
        The values do not depend on an input by differentiable operations.
    """
    cotangent = jax.eval_shape(values, points)

    def pulled_back(cotangent: Any, points: Mapping[str, Any]) -> list[Any]:
        (gradients,) = jax.vjp(values, points)[1](cotangent)
        return [gradients[name] for name in points]

    program = jax.make_jaxpr(pulled_back)(cotangent, points).jaxpr
    reached = {program.invars[0]}
    for equation in program.eqns:
        if any(variable in reached for variable in equation.invars if not _is_literal(variable)):
            reached.update(equation.outvars)
    lost = [
        name
        for name, variable in zip(points, program.outvars, strict=True)
        if _is_literal(variable) or variable not in reached
    ]
    if len(lost) == len(points):
        raise ValueError(
            "the output does not depend on the points by differentiable operations: look for jnp.argmax, "
            "rounding, comparisons, casts to integers or lax.stop_gradient in the model, or use an estimator "
            "from values"
        )
    if lost:
        raise ValueError(
            f"the output does not depend on input {lost[0]!r}: hold it, or choose another output"
        )


def check_floats(array: Any, what: str) -> None:
    """Raise TypeError where an array is not of floats."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{what} is of {array.dtype}, which has no gradient: choose one of floats")


def _is_literal(variable: Any) -> bool:
    return isinstance(variable, jax.extend.core.Literal)
