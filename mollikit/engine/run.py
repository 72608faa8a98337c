from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mollikit.budgets import Budget, Status
from mollikit.moments import Tally
from mollikit.progress import Progress, ProgressCallback

# A task evaluates groups start .. stop - 1 and tallies them. It is a pure function of those numbers.
Task = Callable[[int, int], Tally]


@dataclass(frozen=True)
class Plan:
    """Which groups make which block: block b begins at group start + b * block."""

    group_size: int
    block: int
    start: int = 0
    limit: int | None = None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the blocks in order; the last one is cut at the limit."""
        first = self.start
        while self.limit is None or first < self.limit:
            last = first + self.block
            yield first, last if self.limit is None else min(last, self.limit)
            first = last


@dataclass(frozen=True)
class Outcome:
    """What a run merged, in block order, and the budget that stopped it."""

    tally: Tally | None
    n_groups: int
    seconds: float
    stopped: Budget | None
    interrupted: bool = False


def run(
    task: Task,
    plan: Plan,
    budget: Budget,
    *,
    so_far: Tally | None = None,
    executor: Executor | None = None,
    in_flight: int = 4,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Evaluate blocks until the budget is reached, and merge them in block order.

    Blocks are merged by a left fold over their numbers: a fixed tree whose state is one tally, so memory
    is flat in N and the bits depend neither on the order of arrival nor on how many blocks are in
    flight. The budget looks at the prefix in block order alone; blocks beyond the one where it is reached are
    discarded.
    """
    began = time.perf_counter()
    outcome = Outcome(so_far, plan.start, 0.0, None)
    blocks, watch = 0, budget.begun()
    try:
        with _in_order(task, plan, executor, in_flight) as tallies:
            for last, tally in tallies:
                merged = tally if outcome.tally is None else outcome.tally.merged(tally)
                previous, blocks = outcome.n_groups, blocks + 1
                seconds = time.perf_counter() - began
                status = Status(last, previous, last * plan.group_size, seconds, blocks, merged.named)
                stopped = watch.reached(status)
                # One assignment: an interrupt finds the outcome before or after it, never in between.
                outcome = Outcome(merged, last, seconds, stopped)
                if progress is not None:
                    share = 1.0 if stopped else watch.share(status)
                    error = merged.gradient.relative_error
                    progress(Progress(status.n_evaluations, seconds, share, error, done=stopped is not None))
                if stopped:
                    break
    except KeyboardInterrupt:
        return replace(outcome, stopped=None, interrupted=True)
    return outcome


@contextmanager
def _in_order(
    task: Task, plan: Plan, executor: Executor | None, in_flight: int
) -> Iterator[Iterator[tuple[int, Tally]]]:
    """Give the tallies of the blocks in their order, each with its last group + 1."""
    if executor is None:
        yield ((stop, task(start, stop)) for start, stop in plan.ranges())
        return
    waiting: deque[tuple[int, Future[Tally]]] = deque()
    ranges = plan.ranges()

    def tallies() -> Iterator[tuple[int, Tally]]:
        while True:
            while len(waiting) < in_flight and (block := next(ranges, None)) is not None:
                waiting.append((block[1], executor.submit(task, *block)))
            if not waiting:
                return
            stop, future = waiting[0]
            tally = future.result()
            waiting.popleft()
            yield stop, tally

    try:
        yield tallies()
    finally:
        for _, future in waiting:
            future.cancel()
