from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# An element of a row of the output, the only one, or a function from a batch's output to one scalar a row.
Target: TypeAlias = int | tuple[int, ...] | Callable[[Any], Any] | None
# Several elements of a row of the output, or the largest.
Targets: TypeAlias = "Sequence[int] | Sequence[tuple[int, ...]] | NDArray[Any] | Top"
# Sizes of a row of the output; None where an axis is open.
Row: TypeAlias = Sequence[int | None]


@dataclass(frozen=True)
class Top:
    """The k largest elements of the output on the clean input, as several targets, the largest first.

    Raises
    ------
    ValueError
        If k is not positive.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"Top({self.k!r}): at least one element is explained")

    def of(self, row: NDArray[Any]) -> list[tuple[int, ...]]:
        """Indices of the elements of a row of the output; of equal ones the first come first.

        Raises
        ------
        ValueError
            The row has fewer elements.
        FloatingPointError
            It holds a NaN.

        Examples
        --------
        >>> Top(2).of(np.array([0.1, 0.7, 0.2]))
        [(1,), (2,)]
        """
        if row.size < self.k:
            raise ValueError(f"{self}: a row of the output has {row.size} elements")
        top(row)
        places = np.argsort(-row, axis=None, kind="stable")[: self.k]
        return [tuple(int(k) for k in np.unravel_index(int(place), row.shape)) for place in places]


def check_target(target: Any) -> None:
    """Raise where a target could not fit any output.

    Raises
    ------
    TypeError
        It is neither made of integers nor a function, "top" or None.
    ValueError
        An index is negative.
    """
    check_kind(target)
    if any(isinstance(k, int | np.integer) and k < 0 for k in _index(target)):
        raise ValueError(f"target {target!r} is out of range: elements are counted from 0")


def read_targets(targets: Any, held: Mapping[str, Any]) -> NDArray[np.int64]:
    """Read several targets of one output: integers (K,), or (K, n_axes) of more axes than one.

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        There are none, their numbers of indices differ, an index is negative, or a target is held beside.

    Examples
    --------
    >>> read_targets([281, 282], {}).shape, read_targets([(0, 3), (0, 4)], {}).shape
    ((2,), (2, 2))
    """
    if "target" in held:
        raise ValueError("several targets are given, and held 'target' is one more: drop one of the two")
    if isinstance(targets, str | bytes) or not isinstance(targets, Sequence | np.ndarray):
        raise TypeError(f"targets is a sequence of ints, or of tuples of ints, and got {targets!r}")
    for target in targets:
        if target is None or callable(target) or isinstance(target, str):
            raise TypeError(f"targets are ints or tuples of ints, chosen beforehand, and got {target!r}")
        check_target(tuple(target) if isinstance(target, Sequence | np.ndarray) else target)
    lengths = {np.shape(target) for target in targets}
    if len(lengths) != 1:
        raise ValueError(
            f"targets={targets!r}: there are none; give one at least"
            if not lengths
            else f"targets={targets!r} have different numbers of indices, and are of one output"
        )
    array = np.array([np.asarray(target, np.int64) for target in targets])
    return array[:, 0] if array.shape[1:] == (1,) else array


def check_kind(target: Any, *, functions: bool = True) -> None:
    """Raise TypeError where a target is neither made of integers nor "top", None or a function."""
    if target is None or (functions and callable(target)) or (isinstance(target, str) and target == "top"):
        return
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in _index(target)):
        raise TypeError(f"target is {_kinds(functions)}, 'top' or None, and got {target!r}")


def _index(target: Any) -> tuple[Any, ...]:
    return target if isinstance(target, tuple) else (target,)


def _kinds(functions: bool) -> str:
    return "an int, a tuple of ints, a function" if functions else "an int, a tuple of ints"


def coordinates(
    target: Any,
    by_row: Any,
    rows: int,
    row: Row,
    *,
    output: str = "the output",
    functions: bool = True,
) -> NDArray[np.int64]:
    """Coordinates of the explained element in the output: of each row's own target, or of the fixed one.

    Parameters
    ----------
    target : int, tuple of int, "top" or None
        The fixed one.
    by_row : array (m,) or (m, n_axes), or None
        Integers that take precedence over it.
    rows : int
        The number m of rows.
    row : sequence of int or None
        The output's shape behind the batch axis; an open axis is not checked.
    output : str
        What errors call it.
    functions : bool
        Whether the oracle takes functions as targets, for what errors propose.

    Returns
    -------
    ndarray
        (m, 1 + n_axes), the row's own number first.

    Raises
    ------
    ValueError
        The target is out of range or of the wrong shape, there is none, or "top" has not been resolved.
    TypeError
        Targets by row are not integers.

    Examples
    --------
    >>> coordinates(3, None, 2, (5,)).tolist()
    [[0, 3], [1, 3]]
    >>> coordinates(None, [4, 0], 2, (5,)).tolist()
    [[0, 4], [1, 0]]
    """
    where = np.empty((rows, 1 + len(row)), np.int64)
    where[:, 0] = np.arange(rows)
    if by_row is not None:
        targets = np.asarray(by_row)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"held 'target' takes integers and got an array of {targets.dtype}")
        if targets.shape != (rows, len(row)) and not (len(row) == 1 and targets.shape == (rows,)):
            expected = f"({rows},)" if len(row) == 1 else f"({rows}, {len(row)})"
            raise ValueError(f"held 'target' takes the shape {expected} and got {targets.shape}")
        where[:, 1:] = targets.reshape(rows, len(row))
        check_range(where[:, 1:], row, output)
    elif target == "top":
        raise ValueError(
            "target='top' is resolved on the clean input: call oracle.anchored(inputs) and use what it "
            "returns, or hold a target for each row"
        )
    elif target is None:
        if any(size != 1 for size in row):
            raise ValueError(
                f"{output} has {sizes(row)} elements a row: choose one by target= ({_kinds(functions)}, or "
                "'top'), or hold a target for each row"
            )
        where[:, 1:] = 0
    else:
        fixed = _index(target)
        if len(fixed) != len(row):
            raise ValueError(
                f"target {target!r} has {len(fixed)} indices, and a row of {output} has {len(row)} axes "
                f"({sizes(row)})"
            )
        check_range(np.array([fixed]), row, output)
        where[:, 1:] = fixed
    return where


def coordinates_of(targets: NDArray[np.int64], rows: int, row: Row) -> NDArray[np.int64]:
    """Coordinates (K, m, 1 + n_axes) of several targets, as `coordinates` gives those of one."""
    return np.stack([coordinates(index(target), None, rows, row) for target in targets])


def index(target: NDArray[np.int64]) -> tuple[int, ...]:
    """One of several targets as an index into a row of the output."""
    return tuple(int(k) for k in np.atleast_1d(target))


def check_range(index: NDArray[np.int64], row: Row, output: str = "the output") -> None:
    """Raise ValueError where indices (m, n_axes) are not inside a row of the output."""
    ends = np.array([np.iinfo(np.int64).max if size is None else size for size in row], np.int64)
    wrong = (index < 0) | (index >= ends)
    if wrong.any():
        culprit = index[wrong.any(axis=1)][0].tolist()
        raise ValueError(
            f"target {culprit[0] if len(culprit) == 1 else tuple(culprit)} is out of range: {output} has "
            f"{sizes(row)} {'classes' if len(row) == 1 else 'elements a row'}, counted from 0"
        )


def check_own_rows(among: NDArray[Any], alone: NDArray[Any], rows: int, epsilon: float) -> None:
    """Raise ValueError where a target function gives row 0 another value by itself than among the others.

    The values may have been widened since: ``epsilon`` is that of the dtype in which they were computed.
    """
    allowed = float(epsilon) ** 0.75 * float(np.abs(among).max(initial=0))
    if alone.shape == (1,) and abs(float(alone[0]) - float(among[0])) > allowed:
        raise ValueError(
            f"the target function mixes the rows of a batch: row 0 gives {float(among[0]):g} among "
            f"{rows} rows and {float(alone[0]):g} by itself; reduce over the axes behind the first only"
        )


def top(row: NDArray[Any]) -> tuple[int, ...]:
    """Index of the largest element of a row of the output.

    Raises
    ------
    FloatingPointError
        The output holds a NaN.
    """
    if np.isnan(row).any():
        raise FloatingPointError("the model's output is NaN on the clean input: check the preprocessing")
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(row)), row.shape))


def sizes(row: Row) -> str:
    """A row's shape in words."""
    return " x ".join("any number of" if size is None else str(size) for size in row) or "1"


def name_of(function: Any) -> str:
    """What a function is called; an object that is called goes by its class."""
    return str(getattr(function, "__qualname__", type(function).__name__))
