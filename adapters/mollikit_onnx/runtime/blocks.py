from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mollikit.estimators.base import Setting
from mollikit.oracles import Array
from mollikit_onnx.resident.asking import ResidentBlocks
from mollikit_onnx.resident.design import Design, held_name
from mollikit_onnx.runtime.repetition import copy_of
from mollikit_onnx.runtime.selection import COORDINATES
from mollikit_onnx.runtime.sessions import ReweightedSessions, Sessions
from mollikit_onnx.runtime.signature import Port, Signature
from mollikit_onnx.runtime.targets import coordinates
from mollikit_onnx.runtime.weights import replacements


def blocks_around(
    sessions: Sessions | ReweightedSessions,
    signature: Signature,
    fixed: Any,
    settings: Sequence[Setting],
    rows: int,
) -> ResidentBlocks:
    """Return what asks about one input and its targets, or else the fixed one, by sessions of blocks."""
    blueprint = sessions.blueprint

    def run(
        design: Design, feed: Mapping[str, Array], rows: int, weights: Mapping[str, Array] | None
    ) -> Sequence[Array]:
        own = sessions
        if weights is not None:
            own = sessions.reweighted(replacements(weights, sessions.weights))
        return own.moments(design, feed, rows)

    dtypes = {name: signature.inputs[name].dtype for name in blueprint.wrt}
    beside = one_row_beside(signature, blueprint.output, fixed, settings)
    return ResidentBlocks(settings, rows, dtypes, beside, run)


def one_row_beside(
    signature: Signature, output: Port, fixed: Any, settings: Sequence[Setting]
) -> dict[str, Array]:
    """What the graph of a block takes of the targets and the held arrays, one row of each.

    Raises
    ------
    ValueError, TypeError
        One of them does not fit the model.
    """
    beside = {
        held_name(name): signature.inputs[name].batch(array[None])
        for name, array in settings[0].held.items()
        if name != "target"
    }
    for k, setting in enumerate(settings):
        target = setting.held.get("target")
        name = COORDINATES if len(settings) == 1 else copy_of(COORDINATES, k)
        beside[held_name(name)] = coordinates(1, fixed, None if target is None else target[None], output)
    return beside
