from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Rows that a model is asked about in one call, by default: enough to keep it busy, few enough that the
# points, the gradients and the model's own activations stay in the low hundreds of megabytes.
_COORDINATES = 1 << 20
_MOST_ROWS, _LEAST_ROWS = 256, 8
# A run that is ended by a clock should hold at least this many blocks.
_BLOCKS_PER_DEADLINE = 16


@dataclass(frozen=True)
class Block:
    """What is drawn and merged together, in groups, and the rows in each call of the model.

    A call holds the whole block, or, where a single group is spread over several calls, a part of it.
    """

    groups: int
    rows: int

    def halved(self, whole_groups: bool) -> Block | None:
        """Return a block of half the rows, or None where there is none."""
        if self.groups > 1:
            groups = self.groups // 2
            return Block(groups, groups * (self.rows // self.groups))
        return None if whole_groups or self.rows == 1 else Block(1, self.rows // 2)


def choose_block(
    asked: int | None,
    size: int,
    group_size: int,
    limit: int | None,
    deadline: float | None,
    probe: Callable[[int], object],
    *,
    whole_groups: bool = True,
    most_rows: int | None = None,
) -> Block:
    """Choose the block.

    What is asked for is taken as it is (in whole groups, where it holds one). Otherwise it follows the
    input's size; a known limit is cut into equal blocks, so that little of the last one is padding; and
    where only a clock ends the run, one call on the clean input is timed, so that a slow model gets
    small blocks (with a limit beside the clock, which no call may exceed, the limit is cut more finely
    instead). A call that is slow for the block and takes less than half of the time is timed again: the
    first may have built the model. With ``whole_groups`` a call never holds less than a group;
    ``most_rows`` are what a call holds at most, however many there are in the block.

    Raises
    ------
    ValueError
        If a block is asked for that does not hold one group, where it must, or no row.
    """
    if asked is not None:
        if asked < group_size and (whole_groups or asked < 1):
            raise ValueError(
                f"block={asked} holds less than one group of {group_size} points; a group is evaluated whole"
                if whole_groups
                else f"block={asked}: a call of the model holds at least one row"
            )
        return _block(asked, group_size, whole_groups)
    rows = min(max(_COORDINATES // size, _LEAST_ROWS), _MOST_ROWS)
    if deadline is not None and limit is None:
        few = group_size if whole_groups else min(group_size, _LEAST_ROWS, most_rows or group_size)
        seconds = _seconds_of(probe, few)
        if deadline / _BLOCKS_PER_DEADLINE * few < rows * seconds and seconds < deadline / 2:
            # The first call of an oracle may have built what it runs.
            seconds = min(seconds, _seconds_of(probe, few))
        rows = max(1, min(rows, int(deadline / _BLOCKS_PER_DEADLINE * few / seconds)))
    elif deadline is not None and limit is not None:
        rows = max(1, min(rows, limit * group_size // _BLOCKS_PER_DEADLINE))
    block = _block(rows, group_size, whole_groups)
    if limit is not None and block.groups > 1:
        blocks = -(-limit // block.groups)
        groups = -(-limit // blocks)
        return Block(groups, groups * group_size)
    return block


def _seconds_of(probe: Callable[[int], object], few: int) -> float:
    began = time.perf_counter()
    probe(few)
    return max(time.perf_counter() - began, 1e-9)


def _block(rows: int, group_size: int, whole_groups: bool) -> Block:
    groups = max(1, rows // group_size)
    return Block(groups, groups * group_size if whole_groups else min(rows, groups * group_size))
