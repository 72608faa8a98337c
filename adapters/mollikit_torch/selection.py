from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mollikit.oracles import Array

# One of several outputs: its place, its key or attribute, or a function that takes it out.
Output: TypeAlias = int | str | Callable[[Any], Any] | None
# An element of a row, the only one, or a function from a batch's output to one scalar a row.
Target: TypeAlias = int | tuple[int, ...] | Callable[[Any], Tensor] | None


def check_target(target: Any) -> None:
    """Raise where a target could not fit any output.

    Raises
    ------
    TypeError
        It is neither made of integers nor a function, "top" or None.
    ValueError
        An index is negative.
    """
    if target is None or callable(target) or (isinstance(target, str) and target == "top"):
        return
    index = target if isinstance(target, tuple) else (target,)
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in index):
        raise TypeError(f"target is an int, a tuple of ints, a function, 'top' or None, and got {target!r}")
    if any(k < 0 for k in index):
        raise ValueError(f"target {target!r} is out of range: elements are counted from 0")


def chosen(outputs: Any, output: Output) -> Any:
    """Return one of the model's outputs, or all that it returns where none is named.

    Raises
    ------
    ValueError
        There is no such output.
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    try:
        if isinstance(output, str) and not isinstance(outputs, Mapping):
            return getattr(outputs, output)
        return outputs[output]
    except (KeyError, IndexError, AttributeError, TypeError):
        raise ValueError(f"The model has no output {output!r}: it returns {_form(outputs)}") from None


def tensor_output(output: Any, rows: int) -> Tensor:
    """Return the output if it is a tensor with one row for each point.

    Raises
    ------
    TypeError
        It is not a tensor.
    ValueError
        Its first axis is not the batch.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"The model returns {_form(output)}: choose one tensor by output=")
    if output.ndim == 0 or len(output) != rows:
        raise ValueError(
            f"the output has the shape {tuple(output.shape)} for {rows} points: its first "
            "axis must be the batch"
        )
    return output


def row_values(output: Any, target: Any, by_row: Any, rows: int) -> Tensor:
    """Return the scalar (m,) of each row that is to be differentiated.

    Raises
    ------
    ValueError
        The target is out of range or of the wrong shape, there is none, or a function mixes the rows.
    TypeError
        The output is not of floats, or targets by row are not integers.
    """
    if callable(target):
        if by_row is not None:
            raise ValueError("target is a function, so a target held with the rows has no meaning: drop one")
        return _by_function(output, target, rows)
    tensor = tensor_output(output, rows)
    _check_floats(tensor, "the output")
    if by_row is not None:
        index = _coordinates(tensor, by_row, rows)
        return tensor[(torch.arange(rows, device=tensor.device), *index.T)]
    if target == "top":
        raise ValueError(
            "target='top' is resolved on the clean input: call oracle.anchored(inputs) and use what it "
            "returns, or hold a target for each row"
        )
    row = tuple(tensor.shape[1:])
    if target is None:
        if any(size != 1 for size in row):
            raise ValueError(
                f"the output has {_sizes(row)} elements a row: choose one by target= (an int, a tuple of "
                "ints, a function, or 'top'), or hold a target for each row"
            )
        return tensor.reshape(rows)
    fixed = target if isinstance(target, tuple) else (target,)
    if len(fixed) != len(row):
        raise ValueError(
            f"target {target!r} has {len(fixed)} indices, and a row of the output has {len(row)} axes "
            f"({_sizes(row)})"
        )
    _check_range(np.array([fixed]), row)
    return tensor[(slice(None), *fixed)]


def top(row: Array) -> tuple[int, ...]:
    """Index of the largest element of a row of the output.

    Raises
    ------
    FloatingPointError
        The output holds a NaN.
    """
    if np.isnan(row).any():
        raise FloatingPointError("the model's output is NaN on the clean input: check the preprocessing")
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(row)), row.shape))


def _by_function(output: Any, target: Callable[[Any], Tensor], rows: int) -> Tensor:
    values = target(output)
    if not isinstance(values, Tensor) or values.shape != (rows,):
        got = f"a tensor {tuple(values.shape)}" if isinstance(values, Tensor) else _form(values)
        raise ValueError(
            f"the target function gave {got} for {rows} points: it must give one scalar a row, a tensor "
            f"of shape ({rows},)"
        )
    _check_floats(values, "the target function's result")
    if rows > 1:
        with torch.no_grad():
            alone = target(_first_row(output, rows))
        allowed = torch.finfo(values.dtype).eps ** 0.75 * values.detach().abs().max()
        if alone.shape == (1,) and (alone[0] - values[0].detach()).abs() > allowed:
            raise ValueError(
                f"the target function mixes the rows of a batch: row 0 gives {values[0].item():g} among "
                f"{rows} rows and {alone[0].item():g} by itself; reduce over the axes behind the first only"
            )
    return values


def _first_row(output: Any, rows: int) -> Any:
    if isinstance(output, Tensor):
        return output[:1] if output.ndim and len(output) == rows else output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = {f.name: _first_row(getattr(output, f.name), rows) for f in dataclasses.fields(output)}
        return dataclasses.replace(output, **fields)
    if isinstance(output, Mapping):
        return {name: _first_row(value, rows) for name, value in output.items()}
    if type(output) in (tuple, list):
        return type(output)(_first_row(value, rows) for value in output)
    return output


def _coordinates(output: Tensor, by_row: Any, rows: int) -> Tensor:
    row = tuple(output.shape[1:])
    targets = np.asarray(by_row)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"held 'target' takes integers and got an array of {targets.dtype}")
    if targets.shape != (rows, len(row)) and not (len(row) == 1 and targets.shape == (rows,)):
        expected = f"({rows},)" if len(row) == 1 else f"({rows}, {len(row)})"
        raise ValueError(f"held 'target' takes the shape {expected} and got {targets.shape}")
    targets = targets.reshape(rows, len(row))
    _check_range(targets, row)
    return torch.tensor(targets.astype(np.int64), device=output.device)


def _check_floats(tensor: Tensor, what: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{what} is of {tensor.dtype}, which has no gradient: choose one of floats")


def _check_range(index: Any, row: tuple[int, ...]) -> None:
    wrong = (index < 0) | (index >= np.array(row, np.int64))
    if wrong.any():
        culprit = index[wrong.any(axis=1)][0].tolist()
        raise ValueError(
            f"target {culprit[0] if len(culprit) == 1 else tuple(culprit)} is out of range: the output has "
            f"{_sizes(row)} {'classes' if len(row) == 1 else 'elements a row'}, counted from 0"
        )


def _sizes(row: tuple[int, ...]) -> str:
    return " x ".join(map(str, row)) or "1"


def _form(outputs: Any) -> str:
    """What a model returned, in words that tell what can be chosen."""
    if isinstance(outputs, Tensor):
        return f"a tensor {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        return f"a mapping with the keys {list(outputs)}"
    if isinstance(outputs, tuple | list):
        return f"{len(outputs)} outputs, numbered from 0"
    if dataclasses.is_dataclass(outputs):
        return f"a {type(outputs).__name__} with {[field.name for field in dataclasses.fields(outputs)]}"
    return f"an object of type {type(outputs).__name__}"
