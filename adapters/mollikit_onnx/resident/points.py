"""Points around a clean input, in a graph: drawn by their address, turned into a kernel's law, and moved."""

from __future__ import annotations

from onnx import TensorProto, helper

from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.resident.design import (
    COUNTER,
    DIMENSION,
    END,
    FIRST,
    FRESH,
    GROUPS,
    KEY,
    ROWS,
    STRETCHES,
    WORDS,
    Design,
    Inputs,
    Leaf,
)
from mollikit_onnx.resident.draws import displaced, fresh, tied
from mollikit_onnx.resident.generator import normals


def points(inputs: Inputs, design: Design) -> dict[str, Tensor]:
    """Return the points (rows, *shape) of every leaf, by name."""
    moving = [leaf for leaf in design.leaves if leaf.moves]
    steps = dict(zip((leaf.name for leaf in moving), _steps(inputs, design, len(moving)), strict=True))
    return {
        leaf.name: _moved(inputs, design, leaf, steps[leaf.name]) if leaf.moves else _still(inputs, leaf)
        for leaf in design.leaves
    }


def repeated(inputs: Inputs, row: Tensor) -> Tensor:
    """Return one row (1, *shape) as often as there are points."""
    return row.op("Expand", inputs.graph.joined(inputs.number(ROWS), row.dims(1)))


def _steps(inputs: Inputs, design: Design, leaves: int) -> list[Tensor]:
    """Sampled normals (rows, moving coordinates) of each leaf that moves."""
    if not leaves:
        return []
    groups, dimension, drawn = inputs.number(GROUPS), inputs.number(DIMENSION), fresh(design.sampler)
    counter, key = (inputs.take(name, TensorProto.UINT64, [1]) for name in (COUNTER, KEY))
    z = normals(counter, inputs.take(WORDS, TensorProto.INT64, []), key, groups, design.precision)
    if design.odd:
        z = z.op("Slice", [0], inputs.number(FRESH), [1])
    z = tied(design.sampler, z.reshaped(groups, drawn, dimension)).reshaped(-1, dimension)
    if design.apart:
        z = z.op("Slice", inputs.number(FIRST), inputs.number(END), [0])
    if leaves == 1:
        return [z]
    stretches = inputs.take(STRETCHES, TensorProto.INT64, [leaves])
    return inputs.graph.ops(leaves, "Split", z, stretches, axis=1)


def _moved(inputs: Inputs, design: Design, leaf: Leaf, steps: Tensor) -> Tensor:
    graph, dtype = inputs.graph, design.precision
    if leaf.tabulated:
        steps = displaced(steps, inputs.take(leaf.of("table"), dtype, [None, None]))
    if not leaf.whole:
        # Coordinates that stay take anybody's step, by a width of zero.
        steps = steps.op("Gather", inputs.take(leaf.of("places"), TensorProto.INT64, [None]), axis=1)
    clean, widths = (inputs.take(leaf.of(what), dtype, [1, None]) for what in ("clean", "widths"))
    moved = (steps * widths + clean).reshaped(graph.joined(-1, *leaf.shape))
    to = helper.np_dtype_to_tensor_dtype(leaf.dtype)
    return moved if to == dtype else moved.op("Cast", to=to)


def _still(inputs: Inputs, leaf: Leaf) -> Tensor:
    dtype = helper.np_dtype_to_tensor_dtype(leaf.dtype)
    return repeated(inputs, inputs.take(leaf.of("clean"), dtype, [1, *leaf.shape]))
