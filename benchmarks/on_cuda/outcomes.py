"""What came of the cases of the conformance check, and the lines that say so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from on_cuda.cases import every_case
from on_cuda.report import table

UNITS = {"float64": 128, "float32": 128, "float16": 16, "bfloat16": 16}
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
VERDICTS = ("agrees", "near", "differs", "not on CUDA", "random", "failed")
VERDICTS += ("no reference", "refused", "not reached")
LISTED, _IN_GROUPS = VERDICTS[1:-3], VERDICTS[-3:]


@dataclass(frozen=True)
class Outcome:
    """What came of a case; gaps are relative to the norm, of gradients and of forward outputs."""

    verdict: str
    reason: str = ""
    gap: float = 0.0
    forward_gap: float = 0.0
    dtype: str = ""
    repeats: bool = True
    on_cpu: Mapping[tuple[str, bool], int] = field(default_factory=dict)  # by operator and whether of floats


def summary(outcomes: Mapping[str, Outcome]) -> list[str]:
    counts = Counter(outcome.verdict for outcome in outcomes.values())
    lines = [
        f"{len(outcomes)} gradient graphs: {', '.join(f'{counts[v]} {v}' for v in VERDICTS if counts[v])}."
    ]
    agreeing: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes.values():
        if outcome.verdict == "agrees":
            agreeing[outcome.dtype].append(outcome)
    for dtype, found in agreeing.items():
        gaps = np.array([outcome.gap for outcome in found]) / EPSILON[dtype]
        lines.append(
            f"{dtype}: {len(found)} agree; gaps of their gradients in units of the last place: median "
            f"{np.median(gaps):.2g}, 99% below {np.quantile(gaps, 0.99):.2g}, largest {gaps.max():.2g} of "
            f"{UNITS[dtype]}."
        )
    largest = sorted(
        (name for name, outcome in outcomes.items() if outcome.verdict == "agrees"),
        key=lambda name: -outcomes[name].gap / EPSILON[outcomes[name].dtype],
    )
    shown = (f"{name} {outcomes[name].gap / EPSILON[outcomes[name].dtype]:.2g}" for name in largest[:5])
    lines.append(f"The largest gaps among those that agree, in these units: {'; '.join(shown)}.")
    unsteady = [name for name, outcome in outcomes.items() if not outcome.repeats]
    listed = ", ".join(unsteady[:12]) or "none"
    lines.append(f"{len(unsteady)} gave other bits in a second run on CUDA: {listed}.")
    return lines


def details(outcomes: Mapping[str, Outcome]) -> list[str]:
    """By operator, nodes on the CPU, and what does not agree."""
    return [*_by_operator(outcomes), "", *_placed(outcomes), "", *_listed(outcomes)]


def _by_operator(outcomes: Mapping[str, Outcome]) -> list[str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in outcomes.items():
        counts[every_case()[name][0]][outcome.verdict] += 1
    rows = (
        (operator, found.total(), *(found[v] or "" for v in VERDICTS))
        for operator, found in sorted(counts.items())
    )
    return table(("operator", "graphs", *VERDICTS), rows)


def _placed(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Nodes on the CPU in graphs that ran on CUDA, by their operator."""
    nodes: dict[str, Counter[bool]] = defaultdict(Counter)
    graphs: dict[str, list[str]] = defaultdict(list)
    for name, outcome in outcomes.items():
        for (operator, floats), count in outcome.on_cpu.items():
            nodes[operator][floats] += count
            if floats:
                graphs[operator].append(name)
    rows = (
        (operator, found[True], found[False], len(graphs[operator]), ", ".join(graphs[operator][:2]))
        for operator, found in sorted(nodes.items(), key=lambda item: -item[1][True])
    )
    return table(("on the CPU", "that make floats", "others", "graphs with floats", "such as"), rows)


def _listed(outcomes: Mapping[str, Outcome]) -> Iterable[str]:
    for verdict in VERDICTS[1:]:
        found = {n: o for n, o in sorted(outcomes.items()) if o.verdict == verdict}
        if not found:
            continue
        yield f"### {verdict[0].upper()}{verdict[1:]}: {len(found)}"
        yield ""
        yield from _grouped(found) if verdict in _IN_GROUPS else _each(found)
        yield ""


def _each(found: Mapping[str, Outcome]) -> Sequence[str]:
    return [f"- `{name}`{': ' if outcome.reason else ''}{outcome.reason}" for name, outcome in found.items()]


def _grouped(found: Mapping[str, Outcome]) -> Sequence[str]:
    reasons = Counter(outcome.reason[:120] for outcome in found.values())
    return [f"- {count}: {reason}" for reason, count in reasons.most_common()]
