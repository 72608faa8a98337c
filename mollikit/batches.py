from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of an input without its batch axis; None where an axis is open.
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Batch:
    """The arguments of an oracle's call, read and checked, as NumPy arrays.

    Attributes
    ----------
    points, held : mapping of ndarray
        By input name; points given as one array stand under the empty name where theirs is not known.
    as_mapping : bool
        Whether the points came as a mapping, and their gradients go back as one.
    rows : int
        Length m of the batch axis.
    """

    points: Mapping[str, NDArray[Any]]
    held: Mapping[str, NDArray[Any]]
    as_mapping: bool
    rows: int

    @classmethod
    def read(cls, points: Any, held: Mapping[str, Any], shapes: Mapping[str, Shape] | None = None) -> Batch:
        """Read the arguments of an oracle's call.

        Parameters
        ----------
        points, held
            As an oracle gets them.
        shapes : mapping of Shape, optional
            Of all the model's inputs, to be given by these names; or that of its first one alone, under the
            empty name, where the names of the others are not known.

        Raises
        ------
        ValueError, TypeError
            An input is missing, unknown, given twice, or of the wrong shape or dtype.
        """
        shapes = shapes or {}
        given = _by_name(points, held, shapes)
        both = sorted(given.keys() & held.keys())
        if both:
            raise ValueError(f"input {both[0]!r} is among the points and held too: give it once")
        arrays = {}
        for name, values in given.items():
            label = f"input {name!r}" if name else "the array of points"
            arrays[name] = _numbers(values, label)
            if not _is_float(arrays[name].dtype):
                raise TypeError(
                    f"{label} is of {arrays[name].dtype}, which cannot be smoothed: give floats, or hold it "
                    "by name and smooth what the model makes of it"
                )
            check_shape(label, arrays[name].shape, shapes.get(name))
        fixed = {name: _numbers(values, f"held {name!r}") for name, values in held.items()}
        for name, array in fixed.items():
            check_shape(f"held {name!r}", array.shape, shapes.get(name))
        lengths = {name or "points": len(array) for name, array in {**arrays, **fixed}.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every input has one row for each point; their batch axes are {lengths}")
        if shapes and "" not in shapes:
            _check_names(arrays, fixed, shapes)
        return cls(arrays, fixed, isinstance(points, Mapping), next(iter(lengths.values())))

    def one_of_zeros(self) -> Batch:
        """Return a batch of the same form with a single row of zeros, for a model that takes no empty one."""
        points, held = (
            {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
            for arrays in (self.points, self.held)
        )
        return replace(self, points=points, held=held, rows=1)

    def row(self, k: int) -> Batch:
        """Return row k as a batch of its own."""
        points, held = (
            {name: array[k : k + 1] for name, array in arrays.items()} for arrays in (self.points, self.held)
        )
        return replace(self, points=points, held=held, rows=1)

    def in_their_form(self, gradients: Mapping[str, NDArray[Any]]) -> Any:
        """Gradients by name as the points came: one array, or a mapping."""
        return dict(gradients) if self.as_mapping else next(iter(gradients.values()))


def one_row(arrays: Any) -> Any:
    """Return one input, an array or a mapping of arrays, as a batch of a single row."""
    if isinstance(arrays, Mapping):
        return {name: np.asarray(array)[None] for name, array in arrays.items()}
    return np.asarray(arrays)[None]


def _by_name(points: Any, held: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Mapping[str, Any]:
    """Points by input name, under the empty one where there is an array and its name is not known."""
    if not isinstance(points, Mapping):
        free = [name for name in shapes if name not in held]
        if len(free) > 1:
            raise ValueError(
                f"points is a mapping of arrays by input name, or the others are held: the model has {free}"
            )
        return {next(iter(free), ""): points}
    if not points:
        raise ValueError("the mapping of points is empty")
    return points


def _check_names(points: Mapping[str, Any], held: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    given = {**points, **held}
    missing, unknown = sorted(shapes.keys() - given.keys()), sorted(given.keys() - shapes.keys())
    if missing or unknown:
        raise ValueError(
            f"the model takes the inputs {list(shapes)}"
            + (f"; not given: {missing}" if missing else "")
            + (f"; unknown: {unknown}" if unknown else "")
        )


def _numbers(values: Any, label: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iub" and not _is_float(array.dtype):
        raise TypeError(f"{label} is an array of {array.dtype}: floats, integers and booleans can be given")
    if array.ndim == 0:
        raise ValueError(f"{label} takes a batch (m, *shape) and got a scalar")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_float(dtype: np.dtype[Any]) -> bool:
    # bfloat16 and its kind come from ml_dtypes, outside NumPy's own hierarchy.
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def check_shape(label: str, shape: tuple[int, ...], row: Shape | None) -> None:
    """Raise ValueError where the shape of a batch does not fit that of a row."""
    if row is None or _fits(shape[1:], row):
        return
    expected = "(" + ", ".join(["m", *("?" if size is None else str(size) for size in row)]) + ")"
    raise ValueError(
        f"{label} takes a batch of shape {expected} and got {shape}"
        + (": add the batch axis" if _fits(shape, row) else "")
    )


def _fits(shape: tuple[int, ...], row: Shape) -> bool:
    return len(shape) == len(row) and all(
        want is None or got == want for got, want in zip(shape, row, strict=True)
    )
