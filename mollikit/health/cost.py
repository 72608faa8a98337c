from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mollikit.health.findings import Finding, Verdict
from mollikit.health.patient import Patient
from mollikit.oracles import ValueOracle

_SIZES = tuple(2**k for k in range(9))
# A batch that is this near to the best is as good, and smaller ones need less memory and stop sooner.
_AS_GOOD = 1.05
_REPEATS = 3


def cost(patient: Patient, seconds: float) -> Finding:
    """What a gradient and a value cost, by the rows of a call.

    Sizes are tried by doubling until they get slower, memory runs out or the time is up.
    """
    deadline = time.perf_counter() + seconds
    by_size: dict[int, float] = {}
    first: float | None = None
    exhausted = None
    for rows in _SIZES:
        points, held = _batch(patient, rows)

        def gradients(points: Any = points, held: Any = held) -> None:
            patient.oracle.value_and_gradient(points, **held)

        try:
            warm, again = _timed(gradients), _best(gradients, deadline)
        except MemoryError:
            exhausted = rows
            break
        first = warm if first is None else first
        by_size[rows] = again / rows
        slower = by_size[rows] > 1.5 * min(by_size.values())
        if slower or time.perf_counter() + 3 * rows * by_size[rows] > deadline:
            break
    if not by_size:
        return Finding(
            "cost",
            Verdict.FAULT,
            "there is no memory for the gradient of a single point",
            "use a smaller input, a smaller model or another device",
        )
    fastest = min(by_size.values())
    best = next(rows for rows, each in by_size.items() if each <= _AS_GOOD * fastest)
    figures: dict[str, Any] = {
        "seconds_by_rows": {str(rows): each for rows, each in by_size.items()},
        "best_rows": best,
        "seconds": by_size[best],
        "first_call_seconds": first,
    }
    forward = ""
    if isinstance(patient.oracle, ValueOracle):
        oracle = patient.oracle
        points, held = _batch(patient, best)

        def values() -> None:
            oracle.value(points, **held)

        values()
        figures["value_seconds"] = _best(values, time.perf_counter() + seconds / 4) / best
        forward = f", {by_size[best] / figures['value_seconds']:.1f} times a value"
    if exhausted is not None:
        figures["memory_ends_at_rows"] = exhausted
    each = by_size[best]
    return Finding(
        "cost",
        Verdict.GOOD,
        f"a gradient costs {_duration(each)} in batches of {best}{forward} ({_duration(by_size[1])} alone): "
        f"about {_count(10 / each)} in 10 seconds",
        f"block={best} in Python, --block {best} in the shell"
        + ("" if exhausted is None else f"; memory ends at {exhausted} rows"),
        figures,
    )


def _batch(patient: Patient, rows: int) -> tuple[Any, dict[str, Any]]:
    place = np.arange(rows) % len(patient.rows)
    held = {name: values[place] for name, values in patient.held.items()}
    return patient.layout.points(patient.rows[place]), held


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _best(call: Callable[[], None], deadline: float) -> float:
    best = _timed(call)
    for _ in range(_REPEATS - 1):
        if time.perf_counter() + best > deadline:
            break
        best = min(best, _timed(call))
    return best


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _count(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"
