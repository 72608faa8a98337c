from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from mollikit.budgets import Budget, Status
from mollikit.moments import Tally
from mollikit.progress import Progress, ProgressCallback

# A task evaluates groups start .. stop - 1 and tallies them. It is a pure function of those numbers.
Task = Callable[[int, int], Tally]
# A shared task does so for several rows at once, by their numbers, and gives a tally for each.
SharedTask = Callable[[Sequence[int], int, int], Sequence[Tally]]


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
class Execution:
    """Where blocks are evaluated, how many at once, and who is told; none of it changes the bits.

    Raises
    ------
    TypeError, ValueError
        If the executor is none, or no block could be under way.
    """

    executor: Executor | None = None
    in_flight: int | None = None
    progress: ProgressCallback | None = None

    def __post_init__(self) -> None:
        if self.executor is not None and not isinstance(self.executor, Executor):
            raise TypeError(
                f"executor={self.executor!r} is not a concurrent.futures.Executor; give one that is open, "
                "such as ThreadPoolExecutor(2)"
            )
        if self.in_flight is not None and self.in_flight < 1:
            raise ValueError(f"in_flight={self.in_flight}: at least one block must be under way")

    @property
    def most(self) -> int:
        """Blocks under way at once, in an executor."""
        return self.in_flight or (os.cpu_count() or 1) + 1


@dataclass(frozen=True)
class Outcome:
    """What a run merged, in block order, and the budget that stopped it."""

    tally: Tally | None
    n_groups: int
    seconds: float
    stopped: Budget | None
    interrupted: bool = False


@dataclass
class _Row:
    """One estimate under way, and what looks at it."""

    watch: Budget
    outcome: Outcome
    blocks: int = 0

    @property
    def running(self) -> bool:
        return self.outcome.stopped is None

    def merge(self, tally: Tally, last: int, seconds: float, group_size: int) -> Status:
        merged = tally if self.outcome.tally is None else self.outcome.tally.merged(tally)
        previous, self.blocks = self.outcome.n_groups, self.blocks + 1
        seconds += self.outcome.seconds
        status = Status(last, previous, last * group_size, seconds, self.blocks, merged.named)
        # One assignment: an interrupt finds the outcome before or after it, never in between.
        self.outcome = Outcome(merged, last, seconds, self.watch.reached(status))
        return status


def run(
    task: Task,
    plan: Plan,
    budget: Budget,
    execution: Execution,
    so_far: Tally | None = None,
) -> Outcome:
    """Evaluate blocks until the budget is reached, and merge them in block order.

    Blocks are merged by a left fold over their numbers: a fixed tree whose state is one tally, so memory
    is flat in N and the bits depend neither on the order of arrival nor on how many blocks are in
    flight. The budget looks at the prefix in block order alone; blocks beyond the one where it is reached are
    discarded.
    """
    (outcome,), interrupted = run_rows(alone(task), 1, plan, budget, execution, so_far)
    return replace(outcome, stopped=None, interrupted=True) if interrupted else outcome


def run_rows(
    task: SharedTask,
    count: int,
    plan: Plan,
    budget: Budget,
    execution: Execution,
    so_far: Tally | None = None,
) -> tuple[list[Outcome], bool]:
    """Advance rows together, block by block, each until it has reached the budget, as `run` does with one.

    A block's time is counted in equal parts to the rows that it was evaluated for. Progress is that of all
    of them: the sum of their evaluations, the mean share, the largest error.

    Returns
    -------
    outcomes : list of Outcome
        Of each row.
    interrupted : bool
        Whether an interrupt ended the run, be it after all rows were done.
    """
    began = before = time.perf_counter()
    rows = [_Row(budget.begun(), Outcome(so_far, plan.start, 0.0, None)) for _ in range(count)]
    shares, errors = [0.0] * count, [0.0] * count
    try:
        with _in_order(task, plan, rows, execution) as blocks:
            for last, numbers, tallies in blocks:
                now = time.perf_counter()
                running = [(k, tally) for k, tally in zip(numbers, tallies, strict=True) if rows[k].running]
                for k, tally in running:
                    status = rows[k].merge(tally, last, (now - before) / len(running), plan.group_size)
                    if execution.progress is not None:
                        shares[k] = rows[k].watch.share(status) if rows[k].running else 1.0
                        errors[k] = status.moments(None).relative_error
                before, done = now, not any(row.running for row in rows)
                if execution.progress is not None:
                    evaluations = plan.group_size * sum(row.outcome.n_groups for row in rows)
                    share, error = sum(shares) / count, max(errors)
                    execution.progress(Progress(evaluations, now - began, share, error, done))
                if done:
                    break
    except KeyboardInterrupt:
        return [replace(row.outcome, interrupted=row.running) for row in rows], True
    return [row.outcome for row in rows], False


@contextmanager
def _in_order(
    task: SharedTask, plan: Plan, rows: Sequence[_Row], execution: Execution
) -> Iterator[Iterator[tuple[int, Sequence[int], Sequence[Tally]]]]:
    """Give the blocks in their order: the last group + 1, the rows that ran when it began, their tallies."""

    def running() -> list[int]:
        return [k for k, row in enumerate(rows) if row.running]

    def at_once() -> Iterator[tuple[int, Sequence[int], Sequence[Tally]]]:
        for start, stop in plan.ranges():
            numbers = running()
            yield stop, numbers, task(numbers, start, stop)

    executor = execution.executor
    if executor is None:
        yield at_once()
        return
    waiting: deque[tuple[int, list[int], Future[Sequence[Tally]]]] = deque()
    ranges = plan.ranges()

    def tallies() -> Iterator[tuple[int, Sequence[int], Sequence[Tally]]]:
        while True:
            while len(waiting) < execution.most and (block := next(ranges, None)) is not None:
                numbers = running()
                waiting.append((block[1], numbers, executor.submit(task, numbers, *block)))
            if not waiting:
                return
            stop, numbers, future = waiting[0]
            found = future.result()
            waiting.popleft()
            yield stop, numbers, found

    try:
        yield tallies()
    finally:
        for _, _, future in waiting:
            future.cancel()


def alone(task: Task) -> SharedTask:
    """Return the task of one row as one that is shared."""
    return partial(_alone, task)


def _alone(task: Task, _numbers: Sequence[int], start: int, stop: int) -> tuple[Tally]:
    return (task(start, stop),)
