"""The rows of a batch, and how those that share their draws advance together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.budgets import Budget
from mollikit.engine.run import Execution
from mollikit.engine.streams import Key
from mollikit.estimate import Estimate
from mollikit.estimators.provenance import provenance
from mollikit.interruption import Interrupted
from mollikit.layout import Layout
from mollikit.views import ViewLike

if TYPE_CHECKING:
    from mollikit.estimators.base import Estimator, Setting

# One input, and what is held beside it.
Row: TypeAlias = tuple[Any, dict[str, NDArray[Any]]]

# Rows advance together while the points of a block, of all of them, are no more values than these (256 MB
# in single precision).
_TOGETHER = 1 << 26


def rows_of(inputs: ArrayLike | Mapping[str, ArrayLike], held: Mapping[str, ArrayLike]) -> list[Row]:
    """Take a batch apart.

    Raises
    ------
    TypeError, ValueError
        If an input is none, or there are not as many rows everywhere.
    """
    layout = Layout.of(inputs)
    counts = {leaf.label: leaf.shape[0] if leaf.shape else 0 for leaf in layout.leaves}
    beside = {name: np.asarray(values) for name, values in held.items()}
    counts |= {f"held {name!r}": len(v) if v.ndim else 0 for name, v in beside.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the rows of a batch must be as many everywhere, and there are {counts}")
    n_rows = next(iter(counts.values()))
    if n_rows == 0:
        raise ValueError(f"a batch needs a leading axis of rows, which these lack: {sorted(counts)}")

    def row(k: int) -> Any:
        if isinstance(inputs, Mapping):
            return {name: np.asarray(values)[k] for name, values in inputs.items()}
        return np.asarray(inputs)[k]

    return [(row(k), {name: values[k] for name, values in beside.items()}) for k in range(n_rows)]


def together(
    estimator: Estimator,
    oracle: Any,
    rows: Sequence[Row],
    views: Mapping[str, ViewLike],
    budget: Budget,
    seed: int,
    execution: Execution,
) -> list[Estimate]:
    """Estimate rows that advance together, as many at once as the points of their blocks fit memory.

    Raises
    ------
    Interrupted
        On Ctrl-C, carrying the rows that were finished and those under way.
    """
    settings: list[Setting] = []
    for k, (inputs, held) in enumerate(rows):
        # The weights are those of one model, whatever of it a row explains.
        weights = settings[0].weights if settings else None
        settings.append(estimator._setting(oracle, inputs, held, views, budget, Key(seed, k), weights))
    about = [provenance(estimator, settings[0], budget)]
    about += [provenance(estimator, setting, budget, about[0]["weights"]) for setting in settings[1:]]
    blocks = [
        (alike, estimator._block(settings[alike[0]], estimator.block, budget)) for alike in _alike(settings)
    ]
    done: dict[int, Estimate] = {}
    for numbers, block in blocks:
        first = settings[numbers[0]]
        for wave in _waves(numbers, block.groups * first.group_size * first.perturbation.layout.size):
            of_wave = [settings[k] for k in wave], [about[k] for k in wave]
            estimates, interrupted = estimator._advance(*of_wave, block, budget, None, execution)
            found = {k: each for k, each in zip(wave, estimates, strict=True) if each is not None}
            done |= {k: each for k, each in found.items() if each.stopped != "interrupted"}
            if interrupted:
                under_way = [each for k, each in found.items() if k not in done]
                completed = [done[k] for k in sorted(done)]
                raise Interrupted(next(iter(under_way), None), completed, under_way) from None
    return [done[k] for k in range(len(rows))]


def _alike(settings: Sequence[Setting]) -> Iterator[list[int]]:
    """Rows whose groups are of one size; where other coordinates move, they may be of another."""
    for size in dict.fromkeys(setting.group_size for setting in settings):
        yield [k for k, setting in enumerate(settings) if setting.group_size == size]


def _waves(rows: Sequence[int], values: int) -> Iterator[Sequence[int]]:
    """As many rows at once as fit, of which each has so many values in a block."""
    count = max(1, _TOGETHER // values)
    return (rows[first : first + count] for first in range(0, len(rows), count))
