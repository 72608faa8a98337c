from __future__ import annotations

from typing import Any

import numpy as np

from mollikit.oracles import Array
from mollikit_onnx.signature import Port

# A class, an index for each axis behind the batch, or the only element.
Target = int | tuple[int, ...] | None


def fixed_target(target: Any, output: Port) -> tuple[int, ...] | None:
    """Return a target as an index into a row of the output, or None where each row must bring its own.

    Raises
    ------
    ValueError
        The output's rank is unknown, or the target has not as many indices or is out of range.
    TypeError
        The target is not made of integers.
    """
    if target is None:
        single = output.row_shape is not None and all(dim == 1 for dim in output.row_shape)
        return (0,) * len(output.row_shape or ()) if single else None
    row = _row_shape(output)
    index = target if isinstance(target, tuple) else (target,)
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in index):
        raise TypeError(f"target is an int, a tuple of ints, 'top' or None, and got {target!r}")
    if len(index) != len(row):
        raise ValueError(
            f"target {target!r} has {len(index)} indices, and a row of output {output.name!r} has "
            f"{len(row)} axes ({_sizes(row)})"
        )
    _check_range(np.array([index]), row, output)
    return tuple(int(k) for k in index)


def coordinates(rows: int, fixed: Any, by_row: Array | None, output: Port) -> Array:
    """Return coordinates (m, rank), int64, in the output: of each row's own target, or of the fixed one.

    Raises
    ------
    ValueError
        The targets by row are of the wrong shape or out of range, or there is no target but "top" or None.
    TypeError
        The targets by row are not integers.
    """
    row = _row_shape(output)
    where = np.empty((rows, 1 + len(row)), np.int64)
    where[:, 0] = np.arange(rows)
    if by_row is None:
        if fixed == "top":
            raise ValueError(
                "target='top' is resolved on the clean input: call oracle.anchored(inputs) and use what it "
                "returns, or hold a target for each row"
            )
        if fixed is None:
            raise ValueError(
                f"output {output.name!r} has {_sizes(row)} elements a row: choose one by target= (an int, a "
                "tuple of ints, or 'top'), or hold a target for each row"
            )
        where[:, 1:] = fixed
        return where
    targets = np.asarray(by_row)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"held 'target' takes integers and got an array of {targets.dtype}")
    if targets.shape != (rows, len(row)) and not (len(row) == 1 and targets.shape == (rows,)):
        expected = f"({rows},)" if len(row) == 1 else f"({rows}, {len(row)})"
        raise ValueError(f"held 'target' takes the shape {expected} and got {targets.shape}")
    where[:, 1:] = targets.reshape(rows, len(row))
    _check_range(where[:, 1:], row, output)
    return where


def _row_shape(output: Port) -> tuple[int | None, ...]:
    if output.row_shape is None:
        raise ValueError(
            f"The model does not say how many axes its output {output.name!r} has: run "
            "onnx.shape_inference.infer_shapes on it, or declare the output's shape"
        )
    return output.row_shape


def _check_range(index: Array, row: tuple[int | None, ...], output: Port) -> None:
    # ONNX Runtime checks the upper end of the axes that are open here; below zero it would count from it.
    sizes = np.array([np.iinfo(np.int64).max if dim is None else dim for dim in row], np.int64)
    wrong = (index < 0) | (index >= sizes)
    if wrong.any():
        culprit = index[wrong.any(axis=1)][0].tolist()
        raise ValueError(
            f"target {culprit[0] if len(culprit) == 1 else tuple(culprit)} is out of range: output "
            f"{output.name!r} has {_sizes(row)} "
            + ("classes, counted from 0" if len(row) == 1 else "elements a row, counted from 0")
        )


def _sizes(row: tuple[int | None, ...]) -> str:
    return " x ".join("any number of" if dim is None else str(dim) for dim in row) or "1"
