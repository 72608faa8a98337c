from __future__ import annotations

from typing import Any

from mollikit import targets
from mollikit.oracles import Array
from mollikit_onnx.runtime.signature import Port

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
    targets.check_kind(target, functions=False)
    if target is None and (output.row_shape is None or any(size != 1 for size in output.row_shape)):
        return None
    return tuple(coordinates(1, target, None, output)[0, 1:].tolist())


def coordinates(rows: int, fixed: Any, by_row: Array | None, output: Port) -> Array:
    """Return coordinates (m, rank), int64, in the output: of each row's own target, or of the fixed one.

    The upper end of axes that are open here shows in a run alone.

    Raises
    ------
    ValueError
        The targets by row are of the wrong shape or out of range, or there is no target but "top" or None.
    TypeError
        The targets by row are not integers.
    """
    if output.row_shape is None:
        raise ValueError(
            f"The model does not say how many axes its output {output.name!r} has: run "
            "onnx.shape_inference.infer_shapes on it, or declare the output's shape"
        )
    name = f"output {output.name!r}"
    return targets.coordinates(fixed, by_row, rows, output.row_shape, output=name, functions=False)
