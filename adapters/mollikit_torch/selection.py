from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mollikit.outputs import form, not_the_batch
from mollikit.targets import check_own_rows, coordinates


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
        raise TypeError(f"The model returns {form(output)}: choose one tensor by output=")
    if output.ndim == 0 or len(output) != rows:
        raise ValueError(not_the_batch(tuple(output.shape), rows))
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
    where = coordinates(target, by_row, rows, tuple(tensor.shape[1:]))
    if by_row is None:
        # One target for all rows: views, without an index tensor.
        return tensor[(slice(None), *where[0, 1:].tolist())]
    return tensor[tuple(torch.tensor(where, device=tensor.device).T)]


def _by_function(output: Any, target: Callable[[Any], Tensor], rows: int) -> Tensor:
    values = target(output)
    if not isinstance(values, Tensor) or values.shape != (rows,):
        raise ValueError(
            f"the target function gave {form(values)} for {rows} points: it must give one scalar a row, a "
            f"tensor of shape ({rows},)"
        )
    _check_floats(values, "the target function's result")
    if rows > 1:
        with torch.no_grad():
            alone = target(_first_row(output, rows))
            check_own_rows(_doubles(values), _doubles(alone), rows, torch.finfo(values.dtype).eps)
    return values


def _doubles(values: Tensor) -> Any:
    return values.detach().double().cpu().numpy()


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


def _check_floats(tensor: Tensor, what: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{what} is of {tensor.dtype}, which has no gradient: choose one of floats")
