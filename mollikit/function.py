from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np

from mollikit.batches import Batch
from mollikit.oracles import Array, Points
from mollikit.outputs import Output, chosen, form, not_the_batch
from mollikit.targeted import Targeted
from mollikit.targets import Target, check_own_rows, check_target, coordinates, name_of


class FunctionOracle(Targeted):
    """A NumPy function as an oracle: a black box of values, or with the gradient that one has written.

    Functions get a copy of the points, and the held arrays by keyword; points that are a mapping come by
    keyword too. Without a gradient this is an oracle for `Secant` and `ScoreFunction`; with one, what
    is made is an oracle for `Pathwise` as well.

    Parameters
    ----------
    value : callable, optional
        From points (m, *shape) to outputs (m, *output_shape), such as ``predict_proba`` or
        ``decision_function`` of a scikit-learn model, or a call to a remote endpoint.
    gradient : callable, optional
        From points to the gradients (m, *shape) of ``value``, which gives one scalar a row then; of a
        mapping of points, a mapping of gradients.
    value_and_gradient : callable, optional
        Both at once, in the place of ``gradient``; ``value`` may be left out.
    target : int, tuple of int, callable, "top" or None
        Which of several outputs a row is the value, where there is no gradient: a class of an output
        (m, n_classes); an index per axis behind the batch; a function from the output to one scalar a row;
        None where there is one already. "top" is the largest element on the clean input, fixed by
        `anchored`. An array ``target`` held with the rows takes precedence over an index. Functions with a
        gradient get a held ``target`` as any other held array.
    output : int, str or callable, optional
        Which of several arrays that ``value`` returns: its place, its key or attribute, or a function.
    rowwise : bool
        The functions take one point (*shape) at a time, and are called row by row.

    Raises
    ------
    TypeError
        There is no function, or something given is none.
    ValueError
        Two gradients are given, or a target beside a gradient.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> oracle = mk.FunctionOracle(lambda x: (x**3).sum(-1), gradient=lambda x: 3 * x**2)
    >>> smooth = mk.Pathwise(mk.Gaussian(0.1))
    >>> estimate = smooth.estimate(oracle, np.array([1.0, 2.0]), budget=mk.Evaluations(64), rng=0)
    >>> black_box = mk.FunctionOracle(lambda x: np.stack([x.sum(-1), x.prod(-1)], 1), target=1)
    >>> black_box.value(np.array([[2.0, 3.0]]))
    array([6.])
    """

    def __new__(
        cls,
        value: Callable[..., Any] | None = None,
        *,
        gradient: Callable[..., Any] | None = None,
        value_and_gradient: Callable[..., Any] | None = None,
        **_options: Any,
    ) -> Self:
        """Make an oracle with gradients where there are any, so that an estimator sees what it can have."""
        known = gradient is not None or value_and_gradient is not None
        kind: type[Any] = _WithGradient if known and cls is FunctionOracle else cls
        made: Self = object.__new__(kind)
        return made

    def __init__(
        self,
        value: Callable[..., Any] | None = None,
        *,
        gradient: Callable[..., Any] | None = None,
        value_and_gradient: Callable[..., Any] | None = None,
        target: Target | Literal["top"] = None,
        output: Output = None,
        rowwise: bool = False,
    ) -> None:
        if value is None and value_and_gradient is None:
            raise TypeError("FunctionOracle takes value= or value_and_gradient=")
        for name, function in (
            ("value", value),
            ("gradient", gradient),
            ("value_and_gradient", value_and_gradient),
        ):
            if function is not None and not callable(function):
                raise TypeError(f"{name}= is a function, and got a {type(function).__name__}")
        check_target(target)
        if gradient is not None and value_and_gradient is not None:
            raise ValueError("gradient= and value_and_gradient= are two of the same: leave one out")
        differentiable = gradient is not None or value_and_gradient is not None
        if differentiable and (target is not None or output is not None):
            raise ValueError(
                "a gradient is that of the function's own value, one scalar a row: leave target= and output= "
                "out, and hold what the functions choose by"
            )
        self._value, self._gradient, self._both = value, gradient, value_and_gradient
        self._target, self._output, self._rowwise = target, output, rowwise
        self._differentiable = differentiable

    def predict(self, points: Points, **held: Array) -> Array:
        """Return the function's outputs (m, *output_shape) for a batch of points.

        Raises
        ------
        ValueError, TypeError
            An input does not fit, or the output is not one array of numbers with m rows.
        """
        if not self._differentiable:
            held.pop("target", None)
        batch = Batch.read(points, held)
        output = self._outputs(batch if batch.rows else batch.one_of_zeros())
        return _numbers(output, batch.rows or 1)[: batch.rows]

    def value(self, points: Points, **held: Array) -> Array:
        """Return the values (m,) of a batch of points.

        Raises
        ------
        ValueError, TypeError
            An input or the target does not fit, or the output is not one array of numbers with m rows.
        """
        by_row = None if self._differentiable else held.pop("target", None)
        if callable(self._target) and by_row is not None:
            raise ValueError("target is a function, so a target held with the rows has no meaning: drop one")
        batch = Batch.read(points, held)
        if batch.rows == 0:
            return np.zeros(0)
        output = self._outputs(batch)
        if callable(self._target):
            return _of_function(output, self._target, batch.rows)
        array = _numbers(output, batch.rows)
        where = coordinates(self._target, by_row, batch.rows, array.shape[1:])
        values: Array = array[tuple(where.T)]
        return values

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        target = name_of(self._target) if callable(self._target) else self._target
        return {
            "oracle": "mollikit.FunctionOracle",
            "function": name_of(self._value or self._both),
            "differentiable": self._differentiable,
            "output": name_of(self._output) if callable(self._output) else self._output,
            "target": list(target) if isinstance(target, tuple) else target,
            "rowwise": self._rowwise,
        }

    def __repr__(self) -> str:
        target = name_of(self._target) if callable(self._target) else self._target
        return f"FunctionOracle({name_of(self._value or self._both)}, target={target!r})"

    def _outputs(self, batch: Batch) -> Any:
        if self._value is None:
            assert self._both is not None
            return self._called(self._both, batch)[0]
        return chosen(self._called(self._value, batch), self._output)

    def _called(self, function: Callable[..., Any], batch: Batch) -> Any:
        if not self._rowwise:
            return _call(function, batch.points, batch.held)
        return _joined(
            [
                _call(
                    function,
                    *(
                        {name: array[k] for name, array in part.items()}
                        for part in (batch.points, batch.held)
                    ),
                )
                for k in range(batch.rows)
            ]
        )


class _WithGradient(FunctionOracle):
    """A function with its gradient."""

    def value_and_gradient(self, points: Points, **held: Array) -> tuple[Array, Any]:
        """Return values (m,) and gradients in the form of the points.

        Raises
        ------
        ValueError, TypeError
            An input does not fit, or values or gradients are not of the points' rows and shapes.
        """
        batch = Batch.read(points, held)
        if batch.rows == 0:
            none = {name: array.copy() for name, array in batch.points.items()}
            return np.zeros(0), batch.in_their_form(none)
        if self._both is not None:
            values, answer = self._called(self._both, batch)
        else:
            assert self._value is not None
            assert self._gradient is not None
            values, answer = self._called(self._value, batch), self._called(self._gradient, batch)
        array = _numbers(values, batch.rows)
        if array.ndim != 1:
            raise ValueError(
                f"the function gave values of shape {array.shape} for {batch.rows} points: a function with a "
                "gradient gives one scalar a row"
            )
        return array, batch.in_their_form(_gradients(answer, batch))


def _call(function: Callable[..., Any], points: Mapping[str, Array], held: Mapping[str, Array]) -> Any:
    # Copies: a function may write on its arguments, and an estimator's points are not its own.
    keywords = {name: np.array(array) for name, array in {**points, **held}.items()}
    positional = (keywords.pop(""),) if "" in keywords else ()
    return function(*positional, **keywords)


def _joined(rows: Sequence[Any]) -> Any:
    if isinstance(rows[0], Mapping):
        return {name: _joined([row[name] for row in rows]) for name in rows[0]}
    if isinstance(rows[0], tuple):
        return tuple(_joined(column) for column in zip(*rows, strict=True))
    return np.stack([np.asarray(row) for row in rows])


def _numbers(output: Any, rows: int) -> Array:
    if isinstance(output, Mapping | tuple):
        raise TypeError(f"The function returns {form(output)}: choose one array by output=")
    array = np.asarray(output)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"the function returns an array of {array.dtype}, which is no number to explain: of a "
            "classifier, give predict_proba or decision_function"
        )
    if array.ndim == 0 or len(array) != rows:
        raise ValueError(not_the_batch(array.shape, rows))
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _of_function(output: Any, target: Callable[[Any], Any], rows: int) -> Array:
    values = np.asarray(target(output))
    if values.shape != (rows,):
        raise ValueError(
            f"the target function gave an array {values.shape} for {rows} points: it must give one scalar a "
            f"row, an array of shape ({rows},)"
        )
    values = _numbers(values, rows)
    alone = np.asarray(target(_first_row(output, rows)))
    check_own_rows(values, alone, rows, float(np.finfo(values.dtype).eps))
    return values


def _first_row(output: Any, rows: int) -> Any:
    if isinstance(output, Mapping):
        return {name: _first_row(value, rows) for name, value in output.items()}
    if isinstance(output, tuple):
        return tuple(_first_row(value, rows) for value in output)
    return output[:1] if np.ndim(output) and len(output) == rows else output


def _gradients(answer: Any, batch: Batch) -> dict[str, Array]:
    if batch.as_mapping and not isinstance(answer, Mapping):
        raise TypeError(f"points are a mapping, and so is their gradient: the function gave {form(answer)}")
    found = answer if batch.as_mapping else {"": answer}
    if found.keys() != batch.points.keys():
        raise ValueError(f"the gradient is of {list(found)}, and the points are {list(batch.points)}")
    gradients = {}
    for name, points in batch.points.items():
        gradients[name] = np.asarray(found[name])
        if gradients[name].shape != points.shape:
            raise ValueError(
                f"the gradient{f' of {name!r}' if name else ''} has the shape {gradients[name].shape}, and "
                f"the points have {points.shape}"
            )
    return gradients
