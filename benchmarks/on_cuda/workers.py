"""Work in processes that may die: each has one item at a time, so the one that killed it has a name."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# Forked, so that what the parent has loaded is there; the parent itself never touches the device.
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Failed:
    """An item without a result: it raised, its process died or took too long, or it was not reached."""

    reason: str


NOT_REACHED = Failed("not reached in the time given")


@dataclass(frozen=True)
class Last:
    """A result of a process that is of no further use."""

    result: Any


class _Worker:
    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.connection, far = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(work, far), daemon=True)
        self.process.start()
        far.close()
        self.item: Any = None
        self.until = 0.0

    def begin(self, item: Any, seconds: float) -> None:
        self.item, self.until = item, time.monotonic() + seconds
        self.connection.send(item)

    def end(self) -> None:
        """Kill the process: a session may have threads that wait for ever."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def died(self) -> str:
        """How it ended by itself."""
        self.process.join(1)
        self.end()
        return f"the process ended with exit code {self.process.exitcode}"


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    parent = os.getppid()
    while True:
        # Siblings hold this pipe open too, so its end would never be seen.
        while not connection.poll(1):
            if os.getppid() != parent:
                os._exit(0)
        item = connection.recv()
        try:
            result = work(item)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            result = Failed(f"{first_line(error)} ({os.path.basename(where.filename)}:{where.lineno})")
        sys.stdout.flush()
        connection.send(result)


def first_line(error: BaseException) -> str:
    """The error in a line of a table."""
    return f"{type(error).__name__}: {error}".split("\n")[0].replace("|", "/")[:300]


def each_in_workers(
    work: Callable[[Any], Any], items: Sequence[Any], workers: int, seconds_each: float, until: float
) -> Iterator[tuple[Any, Any]]:
    """Items with their results as they come; a process that dies or hangs is replaced."""
    waiting = list(reversed(items))
    busy: dict[Connection, _Worker] = {}
    try:
        while (waiting and time.monotonic() < until) or busy:
            while waiting and len(busy) < workers and time.monotonic() < until:
                worker = _Worker(work)
                worker.begin(waiting.pop(), seconds_each)
                busy[worker.connection] = worker
            for ready in wait(list(busy), timeout=0.5):
                worker = busy[ready]  # type: ignore[index]
                item = worker.item
                try:
                    result = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    del busy[worker.connection]
                    yield item, Failed(worker.died())
                    continue
                if waiting and time.monotonic() < until and not isinstance(result, Last):
                    worker.begin(waiting.pop(), seconds_each)
                else:
                    del busy[worker.connection]
                    worker.end()
                yield item, result.result if isinstance(result, Last) else result
            for worker in [w for w in busy.values() if time.monotonic() > w.until]:
                del busy[worker.connection]
                worker.end()
                yield worker.item, Failed(f"killed after {seconds_each:.0f} s")
    finally:
        for worker in busy.values():
            worker.end()
    for item in reversed(waiting):
        yield item, NOT_REACHED
