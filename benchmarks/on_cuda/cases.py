"""Gradient graphs with feeds: the cases of onnx's backend suite, and the lines of the table of rules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from mollikit_onnx import vjp, widened
from onnx import ModelProto

from tests.onnx import backend_suite
from tests.onnx.backend_suite import SuiteCase, differentiated, in_own_types, points, suite
from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import drawn, one_node_model, run_onnxruntime
from tests.onnx.rule_cases import CASES, Case

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """A gradient graph and points by preference, each with cotangents."""

    operator: str
    model: ModelProto
    gradient: ModelProto
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    feeds: tuple[Arrays, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Outputs of the gradient graph."""
        return (*self.of, *(f"{name}.gradient" for name in self.wrt))

    def in_float64(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs by onnx's reference evaluator in float64."""
        wide = widened(self.model, np.float64)
        gradient = vjp(wide, self.wrt, self.of)
        doubles = {v.name for v in gradient.graph.input if v.type.tensor_type.elem_type == 11}
        fed = {n: a.astype(np.float64) if n in doubles else a for n, a in feeds.items()}
        return list(evaluator(gradient).run(list(self.names), fed))


@cache
def every_case() -> dict[str, tuple[str, Callable[[], Prepared]]]:
    """Operator and preparation by name."""
    found = {f"suite: {name}": (case.operator, partial(of_suite, case)) for name, case in suite().items()}
    for number, case in enumerate(CASES):
        for symbolic in (False, True):
            name = f"rule {number}{' symbolic' if symbolic else ''}: {case}"
            found[name] = (case.op_type, partial(of_rule, case, symbolic))
    return found


def of_suite(case: SuiteCase) -> Prepared:
    """A case of the suite, cotangents only where its expected outputs are finite."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        case, gradient = differentiated(case)
        rng = np.random.default_rng(0)
        tried = points(case, rng)
        cotangents = _cotangents(case, tried[0], rng)
        feeds = tuple(in_own_types(case, {**point, **cotangents}) for point in tried)
    return Prepared(case.operator, case.model, gradient, case.wrt, case.of, feeds)


def _cotangents(case: SuiteCase, point: Arrays, rng: np.random.Generator) -> Arrays:
    try:
        values = backend_suite.outputs_by_runtime(case, point)
    except Exception:
        # Without a kernel for the model as it is, its shapes are those that the case expects.
        values = {n: np.asarray(case.expected[n], np.float64) for n in case.of}
    return {
        f"{n}.cotangent": np.where(np.isfinite(y), rng.standard_normal(np.shape(y)), 0)
        for n, y in values.items()
    }


def of_rule(case: Case, symbolic: bool) -> Prepared:
    """A line of the table in float32, as test_rules.py runs it."""
    feeds = {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in drawn(case).items()}
    model = one_node_model(case, drawn(case), np.float32, symbolic=symbolic)
    shown = {value.name for value in model.graph.input}
    wrt = tuple(n for n, x in drawn(case).items() if x.dtype == np.float64)
    of = tuple(value.name for value in model.graph.output)
    feeds = {n: x for n, x in feeds.items() if n in shown}
    rng = np.random.default_rng(1)
    for name, y in zip(of, run_onnxruntime(model, feeds), strict=True):
        feeds[f"{name}.cotangent"] = rng.standard_normal(np.shape(y)).astype(np.float32)
    return Prepared(case.op_type, model, vjp(model, wrt, of), wrt, of, (feeds,))
