"""The node cases of onnx's own backend suite, their gradients scored against differences.

A case is scored at its own inputs plus a jitter of 0.1%, which leaves the kinks that many cases sit on. The
truth is a central difference of the model in float64 by onnx's reference evaluator, or in float32 by ONNX
Runtime where that fails, is slow, or gives other outputs than the case expects. Each input that ONNX does not
declare non-differentiable is moved along one direction. A difference counts only where two steps agree: a
direction that crosses a kink is replaced by another, then by single coordinates; an input all of whose
directions are rough is not scored. A case that is refused because an integer, such as an axis, arrives
at run time is scored with its integers as constants, as exporters write them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnxruntime
from mollikit_onnx import ModelError, vjp, widened
from onnx import ModelProto, TensorProto, TypeProto, defs, helper
from onnx import numpy_helper as arrays
from onnx.backend.test.loader import load_model_tests

from tests.onnx.float64_reference import evaluator

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Step and agreement of two steps: for evaluators in float64, and for those that round to float32 inside.
_LADDER = ((1e-5, 1e-6), (3e-3, 2e-3))
_TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-4, np.dtype(np.float16): 2e-2}
_ROUGHEST = 1e-1
_MOST = 20_000

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """Outcome of a case: passed, refused, unscorable, wrong (another number) or broken (no number)."""

    outcome: str
    reason: str = ""


class UnscorableError(Exception):
    """The case has no truth to compare with."""


@dataclass(frozen=True)
class SuiteCase:
    name: str
    operator: str
    model: ModelProto
    inputs: Arrays
    expected: Arrays
    wrt: tuple[str, ...]
    of: tuple[str, ...]


@cache
def suite() -> dict[str, SuiteCase]:
    """Cases with a float input and a float output, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = {case.name: case for case in load_model_tests(kind="node")}
    cases = {}
    for name, case in loaded.items():
        graph = case.model.graph
        given, expected = (
            {
                value.name: arrays.to_array(array) if isinstance(array, TensorProto) else np.asarray(array)
                for value, array in zip(values, data, strict=False)
                if isinstance(array, np.ndarray | np.generic | TensorProto)
            }
            for values, data in zip((graph.input, graph.output), case.data_sets[0], strict=True)
        )
        wrt = [v.name for v in graph.input if _is_float(v.type) and v.name in given]
        of = [v.name for v in graph.output if _is_float(v.type)]
        if wrt and of:
            whole = loaded.get(name.partition("_expanded")[0], case).model
            data = [n for n in wrt if n not in _parameters(whole)]
            node = whole.graph.node[0]
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            cases[name] = SuiteCase(
                name, operator, case.model, given, expected, tuple(data or wrt), tuple(of)
            )
    return cases


def _is_float(kind: TypeProto) -> bool:
    return kind.tensor_type.elem_type in FLOATS


def _parameters(model: ModelProto) -> set[str]:
    """Inputs that ONNX declares non-differentiable for the one node that reads them."""
    if len(model.graph.node) != 1:
        return set()
    (node,) = model.graph.node
    version = next(o.version for o in model.opset_import if o.domain == node.domain)
    ports = defs.get_schema(node.op_type, version, node.domain).inputs
    closed = defs.OpSchema.DifferentiationCategory.NonDifferentiable
    # The last formal parameter stands for all further ones where it is variadic.
    named = {n: ports[min(k, len(ports) - 1)] for k, n in enumerate(node.input) if n}
    return {name for name, port in named.items() if port.differentiation_category == closed}


def in_float64(model: ModelProto) -> ModelProto:
    """The same model with every float in double precision."""
    return widened(model, np.float64)


def with_constants(case: SuiteCase) -> SuiteCase:
    """The same case, its inputs of integers and booleans made initializers."""
    model = ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    model.ir_version = max(model.ir_version, 4)
    constant = {n: a for n, a in case.inputs.items() if a.dtype.kind in "biu"}
    kept = [v for v in graph.input if v.name not in constant]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(arrays.from_array(a, n) for n, a in constant.items())
    inputs = {n: a for n, a in case.inputs.items() if n not in constant}
    return replace(case, model=model, inputs=inputs)


def differentiated(case: SuiteCase) -> tuple[SuiteCase, ModelProto]:
    """The case and its gradient; with its integers as constants where it is refused otherwise."""
    try:
        return case, vjp(case.model, case.wrt, case.of)
    except ModelError:
        case = with_constants(case)
        return case, vjp(case.model, case.wrt, case.of)


def points(case: SuiteCase, rng: np.random.Generator) -> tuple[Arrays, Arrays, Arrays]:
    """Inputs by preference: jittered, as the case has them, and jittered without what is not finite."""
    jittered = {
        n: (a * (1 + 1e-3 * rng.uniform(-1, 1, a.shape)) + 1e-3 * rng.uniform(-1, 1, a.shape)).astype(a.dtype)
        if n in case.wrt
        else a
        for n, a in case.inputs.items()
    }
    # Casts are tested on infinities and NaN.
    tame = {
        n: np.where(np.isfinite(a), a, 0.5).astype(a.dtype) if n in case.wrt else a
        for n, a in jittered.items()
    }
    return jittered, case.inputs, tame


def score(case: SuiteCase) -> Score:
    """Compare the gradient of a case with differences."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            case, gradient = differentiated(case)
        except ModelError as error:
            return Score("refused", str(error))
        except Exception as error:
            return Score("broken", f"vjp: {type(error).__name__}: {error}")
        try:
            return _compared(case, gradient)
        except UnscorableError as reason:
            return Score("unscorable", str(reason))


def _compared(case: SuiteCase, gradient: ModelProto) -> Score:
    rng = np.random.default_rng(0)
    forward, feeds, values = _point(case, rng)
    # An output that is infinite, such as a masked score, has no cotangent there.
    finite = {n: np.isfinite(values[n]) for n in case.of}
    cotangents = {
        f"{n}.cotangent": np.where(finite[n], rng.standard_normal(np.shape(values[n])), 0) for n in case.of
    }
    got = _gradients(case, gradient, feeds | cotangents, values)
    if isinstance(got, str):
        return Score("broken", got)

    def f(moved: Arrays) -> float:
        try:
            made = forward({**feeds, **moved})
        except Exception:
            # Off the domain, such as scales that give no whole size.
            return np.nan
        if any(np.shape(made[n]) != np.shape(values[n]) for n in case.of):
            raise UnscorableError("the shape of the output depends on the values of the input")
        parts = (np.vdot(cotangents[f"{n}.cotangent"][finite[n]], made[n][finite[n]]) for n in case.of)
        return float(sum(parts))

    scored = sum(feeds[name].size == 0 for name in case.wrt)
    noise = 1e-6 * sum(np.linalg.norm(values[n][finite[n]]) + 1 for n in case.of)
    for name in case.wrt:
        for direction in _directions(feeds[name], rng):
            # A slope may be infinite at the edge of a domain, where nothing moves.
            slopes = np.where(direction == 0, 0, got[name])
            size = float(np.linalg.norm(slopes * direction))
            slope, accuracy = _slope(f, name, feeds[name], direction, size)
            if slope is None:
                continue
            scored += 1
            found = float(np.vdot(slopes, direction))
            own = case.inputs[name].dtype
            tolerance = max(_TOLERANCE.get(own, _ROUGHEST), 3 * accuracy)
            if not abs(found - slope) <= tolerance * max(size, abs(slope)) + noise:
                return Score("wrong", f"d/d{name}: {found} where differences give {slope}")
            break
    if not scored:
        raise UnscorableError("every direction crosses a kink, or the values are too coarse")
    return Score("passed")


def _point(case: SuiteCase, rng: np.random.Generator) -> tuple[Callable[[Arrays], Arrays], Arrays, Arrays]:
    """A function to difference, a point where it is finite, and its values there."""
    preferred, reasons = points(case, rng), list[str]()
    for forward in _evaluators(case, reasons):
        for point in preferred:
            feeds = {n: a.astype(np.float64) if n in case.wrt else a for n, a in point.items()}
            try:
                values, again = forward(feeds), forward(feeds)
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {error}".split("\n")[0][:200])
                continue
            if not all(np.array_equal(values[n], again[n], equal_nan=True) for n in case.of):
                raise UnscorableError("it draws random numbers")
            if any(np.isnan(values[n]).any() for n in case.of):
                reasons.append("its outputs are not numbers")
            elif not all(_agree(values[n], case.expected[n]) for n in case.of):
                reasons.append("no evaluator gives the outputs that the case expects")
            else:
                return forward, feeds, values
    raise UnscorableError(reasons[0])


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether an evaluator computes the operator: the jitter moves its values by about 0.1%."""
    wanted = expected.astype(np.float64)
    if found.shape != wanted.shape:
        return False
    both = np.isfinite(wanted) & np.isfinite(found)
    off = np.abs(found[both] - wanted[both]).max(initial=0)
    return bool(off <= 0.05 * (np.abs(wanted[both]).max(initial=0) + 0.1))


def _evaluators(case: SuiteCase, reasons: list[str]) -> Iterator[Callable[[Arrays], Arrays]]:
    floats = {v.name for v in case.model.graph.input if _is_float(v.type)}
    try:
        if any(case.inputs[n].size > _MOST for n in case.wrt):
            raise UnscorableError(f"more than {_MOST} elements are too slow for the reference")
        reference = evaluator(in_float64(case.model))
    except Exception as error:
        reasons.append(f"{type(error).__name__}: {error}"[:200])
    else:
        names = [v.name for v in case.model.graph.output if v.name in case.of]
        wide = lambda feeds: {n: a.astype(np.float64) if n in floats else a for n, a in feeds.items()}  # noqa: E731
        yield lambda feeds: dict(zip(names, reference.run(names, wide(feeds)), strict=True))
    try:
        session = _session(case.model)
    except Exception as error:
        reasons.append(f"{type(error).__name__}: {error}"[:200])
    else:
        yield lambda feeds: dict(zip(case.of, _run(session, case, list(case.of), feeds), strict=True))


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    # Every case is run a few times: what optimising costs does not come back.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(
    session: onnxruntime.InferenceSession, case: SuiteCase, names: list[str], feeds: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    asked = {v.name for v in session.get_inputs()}
    own = {n: a for n, a in in_own_types(case, feeds).items() if n in asked}
    return [np.asarray(y) for y in session.run(names, own)]


def in_own_types(case: SuiteCase, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Inputs and cotangents in the types that the model declares."""
    graph = case.model.graph
    ports = {v.name: v for v in graph.input} | {f"{v.name}.cotangent": v for v in graph.output}
    kinds = {n: helper.tensor_dtype_to_np_dtype(ports[n].type.tensor_type.elem_type) for n in feeds}
    return {n: np.asarray(a, kinds[n]) for n, a in feeds.items()}


def outputs_by_runtime(case: SuiteCase, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """The outputs in float by ONNX Runtime on the CPU."""
    return dict(zip(case.of, _run(_session(case.model), case, list(case.of), feeds), strict=True))


def _gradients(case: SuiteCase, gradient: ModelProto, feeds: Arrays, values: Arrays) -> Arrays | str:
    """Run the gradient on ONNX Runtime; where it lacks a kernel or has another forward, on the reference."""
    names = [*case.of, *(f"{n}.gradient" for n in case.wrt)]
    failures = []
    for run in (_on_runtime, _in_float64, _as_it_is):
        try:
            found = dict(zip(names, run(case, gradient, names, feeds), strict=True))
        except Exception as error:
            failures.append(f"{run.__name__}: {type(error).__name__}: {error}"[:300])
            continue
        if not all(_agree(found[n], values[n]) for n in case.of):
            failures.append(
                f"{run.__name__}: the forward outputs of the gradient are others than the model's"
            )
            continue
        wrong = [n for n in case.wrt if found[f"{n}.gradient"].shape != feeds[n].shape]
        if wrong:
            return f"the gradient of {wrong[0]!r} has another shape"
        return {n: found[f"{n}.gradient"].astype(np.float64) for n in case.wrt}
    return " | ".join(failures)


def _on_runtime(case: SuiteCase, gradient: ModelProto, names: list[str], feeds: Arrays) -> list[np.ndarray]:
    return _run(_session(gradient), case, names, feeds)


def _in_float64(case: SuiteCase, _: ModelProto, names: list[str], feeds: Arrays) -> list[np.ndarray]:
    wide = in_float64(case.model)
    floats = {v.name for v in wide.graph.input if _is_float(v.type)}
    doubles = {n: a.astype(np.float64) if n in floats else a for n, a in feeds.items()}
    return list(evaluator(vjp(wide, case.wrt, case.of)).run(names, doubles))


def _as_it_is(case: SuiteCase, gradient: ModelProto, names: list[str], feeds: Arrays) -> list[np.ndarray]:
    return list(evaluator(gradient).run(names, in_own_types(case, feeds)))


def _directions(x: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Every coordinate by its own magnitude and a random sign, twice; then some coordinates alone."""
    if x.size == 0:
        return
    for _ in range(2):
        signs = rng.choice([-1.0, 1.0], x.shape)
        yield np.where(np.isfinite(x), signs * np.maximum(1, np.abs(x)), 0)
    for k in rng.permutation(x.size)[:8]:
        single = np.zeros(x.size)
        single[k] = 1
        yield single.reshape(x.shape)


def _slope(
    f: Callable[[Arrays], float], name: str, x: np.ndarray, direction: np.ndarray, size: float
) -> tuple[float | None, float]:
    """The slope along a direction and its relative accuracy; None where two steps disagree."""

    def central(h: float) -> float:
        return (f({name: x + h * direction}) - f({name: x - h * direction})) / (2 * h)

    for h, agreement in _LADDER:
        # Rounded values would agree by chance at steps of a whole ratio.
        wide, near = central(h), central(h / np.pi)
        if abs(wide - near) <= agreement * max(abs(wide), abs(near), size, 1e-3):
            return near, agreement
    return None, 0.0
