from __future__ import annotations

import time
from collections.abc import Callable

# Rows that a model is asked about in one call, by default: enough to keep it busy, few enough that the
# points, the gradients and the model's own activations stay in the low hundreds of megabytes.
_COORDINATES = 1 << 20
_MOST_ROWS, _LEAST_ROWS = 256, 8
# A run that is ended by a clock should hold at least this many blocks.
_BLOCKS_PER_DEADLINE = 16


def groups_per_block(
    asked: int | None,
    size: int,
    group_size: int,
    limit: int | None,
    deadline: float | None,
    probe: Callable[[int], object],
) -> int:
    """Choose the block, in groups.

    What is asked for is taken as it is (in whole groups). Otherwise it follows the input's size; a known
    limit is cut into equal blocks, so that little of the last one is padding; and where only a clock
    ends the run, one call on the clean input is timed, so that a slow model gets small blocks.

    Raises
    ------
    ValueError
        If a block is asked for that does not hold one group.
    """
    if asked is not None:
        if asked < group_size:
            raise ValueError(
                f"block={asked} holds less than one group of {group_size} points; a group is evaluated whole"
            )
        return asked // group_size
    rows = min(max(_COORDINATES // size, _LEAST_ROWS), _MOST_ROWS)
    if deadline is not None and limit is None:
        began = time.perf_counter()
        probe(group_size)
        seconds_per_row = max(time.perf_counter() - began, 1e-9) / group_size
        rows = min(rows, int(deadline / _BLOCKS_PER_DEADLINE / seconds_per_row))
    groups = max(1, rows // group_size)
    if limit is not None:
        blocks = -(-limit // groups)
        groups = -(-limit // blocks)
    return groups
