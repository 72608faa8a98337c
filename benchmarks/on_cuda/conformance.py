"""The same gradient graph with the same feeds on the CPU and on CUDA.

Tolerance, relative to the norm of a tensor. Two right ways of computing it differ in the order of their sums
and in the last places of their elementary functions. In float32 and float64 a sum of K terms then moves by
about sqrt(K) units in the last place; K is below 10^4 in nearly all cases: 128 units. In float16 and bfloat16
both accumulate in float32, and each node's result is rounded once: 16 units for the nodes on a path.

What differs by more is compared with what the CPU's own result moves by when every float of the feeds moves
by one unit in the last place, the largest of three draws: up to eight times that is a rounding of the feeds,
of an ill-conditioned graph or of a point beside a kink, and is listed as *near*. All else is listed as
*differs*, with the first node that differs although its inputs agree, both errors to onnx's reference
evaluator in float64 and what CUDA gives without optimisation.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
from mollikit_onnx.runtime.providers import check_providers
from on_cuda.cases import Arrays, Prepared, every_case
from on_cuda.device import CPU, Device, asked, on_the_cpu, profiled
from on_cuda.outcomes import EPSILON, LISTED, UNITS, Outcome, details, summary
from on_cuda.report import Section
from on_cuda.workers import NOT_REACHED, Failed, Last, each_in_workers, first_line
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.helper import get_attribute_value, get_node_attr_value

_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16"}
_SECONDS_EACH = 60.0


def compared(device: Device, name: str) -> Outcome | Last:
    """Run one case on both."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            prepared = every_case()[name][1]()
        except Exception as error:
            return Outcome("refused", first_line(error))
        found = _reference(prepared)
        if isinstance(found, Outcome):
            return found
        feeds, expected = found
        try:
            session, got, nodes = profiled(device, prepared.gradient, feeds, prepared.names)
            again = session.run(list(prepared.names), asked(session, feeds))
        except Exception as error:
            outcome = Outcome("not on CUDA", first_line(error))
            return outcome if _is_alive(device) else Last(outcome)
        placed = Counter((n.operator, n.makes_floats) for n in on_the_cpu(nodes, device))
        repeats = all(_same_bits(a, b) for a, b in zip(got, again, strict=True))
        return _judged(
            device, prepared, feeds, expected, got, partial(Outcome, repeats=repeats, on_cpu=placed)
        )


def _reference(prepared: Prepared) -> Outcome | tuple[Arrays, list[np.ndarray]]:
    """The first point whose outputs on the CPU are numbers, and those."""
    try:
        session = Device(CPU).session(prepared.gradient, optimised=False)
    except Exception as error:
        return Outcome("no reference", first_line(error))
    last = Outcome("no reference", "its outputs are not numbers at any point")
    for feeds in prepared.feeds:
        fed = asked(session, feeds)
        try:
            expected, again = (session.run(list(prepared.names), fed) for _ in range(2))
        except Exception as error:
            last = Outcome("no reference", first_line(error))
            continue
        if not all(_same_bits(a, b) for a, b in zip(expected, again, strict=True)):
            return Outcome("random")
        if not any(_is_float(a) and np.isnan(a.astype(np.float64)).any() for a in expected):
            return feeds, expected
    return last


def _judged(
    device: Device,
    prepared: Prepared,
    feeds: Arrays,
    expected: list[np.ndarray],
    got: list[np.ndarray],
    outcome: Callable[..., Outcome],
) -> Outcome:
    # Of inputs, outputs, and what is cast to on the way.
    kinds = {a.dtype.name for a in (*feeds.values(), *expected)} & EPSILON.keys() | set(_casts(prepared))
    dtype = max(kinds, key=EPSILON.__getitem__)
    tolerance = UNITS[dtype] * EPSILON[dtype]
    gaps = [gap(a, b) for a, b in zip(got, expected, strict=True)]
    heads = len(prepared.of)
    outcome = partial(outcome, gap=max(gaps[heads:]), forward_gap=max(gaps[:heads]), dtype=dtype)
    if max(gaps) <= tolerance:
        return outcome("agrees")
    moved = _moved(prepared, feeds, expected)
    far = [k for k, found in enumerate(gaps) if not found <= max(tolerance, 8 * moved[k])]
    worst = max(far or range(len(gaps)), key=gaps.__getitem__)
    where = (
        f"{prepared.names[worst]}: {gaps[worst]:.1e}; one unit in the feeds moves it by {moved[worst]:.1e}"
    )
    if not far:
        return outcome("near", where)
    plain = _unoptimised(device, prepared, feeds, expected[worst], worst)
    origin = _origin(device, prepared, feeds, tolerance)
    truth = _errors_to_float64(prepared, feeds, {"CPU": expected[worst], "CUDA": got[worst]}, worst)
    shown = f"CUDA {_shown(got[worst])}, CPU {_shown(expected[worst])}"
    others = ", ".join(prepared.names[k] for k in far if k != worst) or "none"
    return outcome("differs", f"{where}; {plain}; {origin}; {truth}; {shown}; off beside it: {others}")


def _casts(prepared: Prepared) -> Iterable[str]:
    for node in prepared.gradient.graph.node:
        if node.op_type == "Cast":
            kind = _FLOATS.get(get_node_attr_value(node, "to"))
            if kind is not None:
                yield kind


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm; infinite where shapes, types or what is not finite differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf
    if not _is_float(expected):
        return 0.0 if np.array_equal(found, expected) else np.inf
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    off, norm = np.linalg.norm(a[finite] - b[finite]), np.linalg.norm(b[finite])
    return float(off / norm) if norm else (0.0 if off == 0 else np.inf)


def _moved(prepared: Prepared, feeds: Arrays, expected: list[np.ndarray]) -> list[float]:
    rng = np.random.default_rng(2)
    session = Device(CPU).session(prepared.gradient, optimised=False)
    moved = [0.0] * len(expected)
    for _ in range(3):
        nudged = {
            n: (a * (1 + EPSILON[a.dtype.name] * rng.choice([-1, 1], a.shape))).astype(a.dtype)
            if a.dtype.name in EPSILON
            else a
            for n, a in feeds.items()
        }
        try:
            outputs = session.run(list(prepared.names), asked(session, nudged))
        except Exception:  # off the domain: nothing is learnt
            continue
        found = [gap(a, b) for a, b in zip(outputs, expected, strict=True)]
        moved = [max(pair) for pair in zip(moved, found, strict=True)]
    return moved


def _unoptimised(device: Device, prepared: Prepared, feeds: Arrays, expected: np.ndarray, which: int) -> str:
    try:
        session = device.session(prepared.gradient, optimised=False)
        found = session.run([prepared.names[which]], asked(session, feeds))[0]
    except Exception as error:
        return f"without optimisation {first_line(error)}"
    return f"without optimisation {gap(found, expected):.1e}"


def _origin(device: Device, prepared: Prepared, feeds: Arrays, tolerance: float) -> str:
    """The first node, run as written, whose outputs differ although its inputs agree: the kernel at fault."""
    model = ModelProto()
    model.CopyFrom(prepared.gradient)
    made = [name for node in model.graph.node for name in node.output if name]
    shown = {value.name for value in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in made if name not in shown)
    try:
        pair = [d.session(model, optimised=False) for d in (device, Device(CPU))]
        ours, theirs = (dict(zip(made, s.run(made, asked(s, feeds)), strict=True)) for s in pair)
    except Exception as error:
        return f"no node found: {first_line(error)[:80]}"
    arrays = (np.ndarray, np.generic)
    off = {
        name
        for name in made
        if isinstance(ours[name], arrays)
        and not gap(np.asarray(ours[name]), np.asarray(theirs[name])) <= tolerance
    }
    for node in model.graph.node:
        if off.intersection(node.output) and not off.intersection(node.input):
            written = ", ".join(f"{a.name}={get_attribute_value(a)}" for a in node.attribute)[:120]
            return f"begins at {node.op_type}({written}) {node.name!r}"
    return "as written, no node differs by itself"


def _errors_to_float64(prepared: Prepared, feeds: Arrays, found: Mapping[str, np.ndarray], which: int) -> str:
    try:
        truth = prepared.in_float64(feeds)[which]
        # The reference is rounded to the type of what it judges, so that infinities compare.
        errors = {key: gap(a, truth.astype(a.dtype)) for key, a in found.items()}
    except Exception as error:
        return f"no float64: {first_line(error)[:80]}"
    return ", ".join(f"error of {key} {error:.1e}" for key, error in errors.items())


def _shown(array: np.ndarray) -> str:
    return np.array2string(array.reshape(-1)[:4].astype(np.float64), precision=7, separator=" ")


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.name in EPSILON


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _is_alive(device: Device) -> bool:
    # After an illegal access every further call of the process fails.
    try:
        check_providers([device.provider])
    except Exception:
        return False
    return True


def run(device: Device, section: Section, workers: int, seconds: float, only: str = "") -> None:
    """Compare all cases and write the table."""
    until = time.monotonic() + seconds
    names = [name for name in every_case() if only in name]
    np.random.default_rng(0).shuffle(names)
    outcomes: dict[str, Outcome] = {}
    for name, result in each_in_workers(partial(compared, device), names, workers, _SECONDS_EACH, until):
        if result is NOT_REACHED:
            outcomes[name] = Outcome("not reached")
            continue
        outcome = Outcome("failed", result.reason) if isinstance(result, Failed) else result
        outcomes[name] = outcome
        if outcome.verdict in LISTED:
            print(f"{outcome.verdict}: {name}: {outcome.reason[:700]}", flush=True)
        if len(outcomes) % 200 == 0:
            print(f"{len(outcomes)} of {len(names)}, {until - time.monotonic():.0f} s left", flush=True)
    section.say(*summary(outcomes))
    section.add("", *details(outcomes))
