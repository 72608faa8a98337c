from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import numpy as jnp

from mollikit.outputs import Output, Shaped, chosen, form, not_the_batch
from mollikit_jax.differentiability import check_floats, refuse_zeros_by_construction
from mollikit_jax.parameters import Parameters

Arrays = Mapping[str, Any]


class Programs:
    """A function's outputs, values and gradients, compiled once for each shape of their arguments.

    Parameters
    ----------
    function : callable
        Called as ``function(params, points, **held)``, or with points by keyword.
    parameters : Parameters
        Their structure, and what in them is no array; the arrays are arguments of every call.
    output : int, str, callable or None
    target : callable or None
        From the output to one scalar a row; None where coordinates choose an element.
    rowwise : bool
        Whether the function takes a single example.
    jit : bool
        Whether to compile.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Parameters,
        output: Output,
        target: Callable[[Any], Any] | None,
        rowwise: bool,
        jit: bool,
    ) -> None:
        self._parts = function, parameters, output, target, rowwise, jit
        self._function, self._parameters, self._output, self._target = function, parameters, output, target
        self._rowwise = rowwise
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = jax.jit if jit else _as_it_is
        self.outputs, self.values = compiled(self._outputs), compiled(self._values)
        self.gradients, self.gradients_of = compiled(self._gradients), compiled(self._gradients_of)
        self._rows: dict[Any, tuple[int, ...]] = {}
        self._checked: set[Any] = set()

    def row(self, weights: Arrays, points: Arrays, held: Arrays) -> tuple[int, ...]:
        """Shape of a row of the chosen output; empty where a function explains it.

        Raises
        ------
        ValueError, TypeError
            The output is not one array of floats with a row for each point.
        """
        if self._target is not None:
            return ()
        key = tuple((name, a.dtype, a.shape) for part in (points, held) for name, a in part.items())
        if key not in self._rows:
            (output,) = jax.eval_shape(self._outputs, weights, points, held)
            check_floats(output, "the output")
            self._rows[key] = output.shape[1:]
        return self._rows[key]

    def _outputs(self, weights: Arrays, points: Arrays, held: Arrays) -> tuple[Any]:
        return (_array_output(self._chosen(weights, points, held), _length(points)),)

    def _values(self, weights: Arrays, points: Arrays, held: Arrays, where: Any) -> tuple[Any, Any]:
        output = self._chosen(weights, points, held)
        if self._target is not None:
            return _by_function(output, self._target, len(where))
        values = output[tuple(where.T)]
        return values, values[:1]

    def _gradients(self, weights: Arrays, points: Arrays, held: Arrays, where: Any) -> tuple[Any, Any, Any]:
        def values(points: Arrays) -> Any:
            return self._values(weights, points, held, where)

        self._check(lambda points: values(points)[0], points)
        found, pull_back, alone = jax.vjp(values, dict(points), has_aux=True)
        (gradients,) = pull_back(jnp.ones_like(found))
        return found, alone, gradients

    def _gradients_of(self, weights: Arrays, points: Arrays, held: Arrays, where: Any) -> tuple[Any, Any]:
        """Values (K, m) and gradients (K, m, *shape) at coordinates (K, m, rank), after one forward pass."""

        def values(points: Arrays) -> Any:
            return self._chosen(weights, points, held)[tuple(jnp.moveaxis(where, -1, 0))]

        self._check(values, points)
        found, pull_back = jax.vjp(values, dict(points))
        # Row k of each cotangent is ones: every target is pulled back by itself.
        each = jnp.eye(len(where), dtype=found.dtype)[:, :, None] * jnp.ones_like(found)
        (gradients,) = jax.vmap(pull_back)(each)
        return found, gradients

    def _check(self, values: Callable[[Arrays], Any], points: Arrays) -> None:
        inputs = tuple((name, array.shape[1:]) for name, array in points.items())
        if inputs not in self._checked:
            refuse_zeros_by_construction(values, points)
            self._checked.add(inputs)

    def _chosen(self, weights: Arrays, points: Arrays, held: Arrays) -> Any:
        params = self._parameters.tree(weights)

        def called(points: Arrays, held: Arrays) -> Any:
            if "" in points:
                return self._function(params, points[""], **held)
            return self._function(params, **points, **held)

        outputs = jax.vmap(called)(points, held) if self._rowwise else called(points, held)
        return chosen(outputs, self._output)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._parts

    def __setstate__(self, parts: tuple[Any, ...]) -> None:
        Programs.__init__(self, *parts)


def _array_output(output: Any, rows: int) -> Any:
    if not isinstance(output, Shaped):
        raise TypeError(f"The model returns {form(output)}: choose one array by output=")
    if len(output.shape) == 0 or output.shape[0] != rows:
        raise ValueError(not_the_batch(output.shape, rows))
    return output


def _by_function(output: Any, target: Callable[[Any], Any], rows: int) -> tuple[Any, Any]:
    values = target(output)
    if not isinstance(values, Shaped) or tuple(values.shape) != (rows,):
        raise ValueError(
            f"the target function gave {form(values)} for {rows} points: it must give one scalar a row, an "
            f"array of shape ({rows},)"
        )
    check_floats(values, "the target function's result")

    def first(array: Any) -> Any:
        return array[:1] if jnp.ndim(array) and len(array) == rows else array

    return values, jax.lax.stop_gradient(target(jax.tree.map(first, output)))


def _length(points: Arrays) -> int:
    return len(next(iter(points.values())))


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
