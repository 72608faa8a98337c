from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.budgets import Budget, as_budget
from mollikit.engine.run import Execution, Plan, run
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.answers import answers_of
from mollikit.estimators.attributions import tells_of_several
from mollikit.estimators.base import Setting
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.provenance import provenance
from mollikit.estimators.tallies import Grouped, grouped, tally_of_groups
from mollikit.interruption import Interrupted
from mollikit.moments import Moments, Tally
from mollikit.oracles import GradientOracle
from mollikit.pointsets import Normals, Uniforms
from mollikit.progress import ProgressCallback
from mollikit.views import ViewLike


@dataclass(frozen=True, eq=False)
class Side:
    """One of two things to be compared: how, of which model, at which input.

    Parameters
    ----------
    estimator : Pathwise
        Of the inputs; its points must come in groups of the same size as the other side's.
    oracle : GradientOracle
    inputs : array (*shape), or mapping of arrays by input name
    held : mapping of arrays, optional
    """

    estimator: Pathwise
    oracle: GradientOracle
    inputs: ArrayLike | Mapping[str, ArrayLike]
    held: Mapping[str, ArrayLike] = field(default_factory=dict)


@dataclass(frozen=True)
class PairedTally(Tally):
    """The moments of the differences of groups, and those of each side."""

    first: Tally
    second: Tally

    def merged(self, other: Tally) -> PairedTally:
        assert isinstance(other, PairedTally)
        both = super().merged(other)
        first, second = self.first.merged(other.first), self.second.merged(other.second)
        return PairedTally(both.gradient, both.views, both.output, first, second)


@dataclass(frozen=True, eq=False, repr=False)
class Difference(Estimate):
    """The difference of two smoothed gradients, first less second, with the error bar of the difference.

    It is saved as an `Estimate` of the difference; to keep the sides, save each.

    Attributes
    ----------
    first, second : Estimate
        Each side by itself, with error bars of its own.
    """

    first: Estimate
    second: Estimate

    @property
    def correlation(self) -> float:
        """Of the two sides' errors, over all coordinates; 0 where a side has none."""
        a, b, d = (self._noise(estimate) for estimate in (self.first, self.second, self))
        scale = 2 * np.sqrt(a * b)
        return float((a + b - d) / scale) if scale > 0 else 0.0

    @property
    def variance_factor(self) -> float:
        """Variance that two independent estimates' difference would have, over this one's."""
        a, b, d = (self._noise(estimate) for estimate in (self.first, self.second, self))
        return float((a + b) / d) if d > 0 else float("inf")

    @staticmethod
    def _noise(estimate: Estimate) -> float:
        return float(np.square(estimate.tally.gradient.standard_error).sum())


@dataclass(frozen=True)
class PairedTask:
    """Draw the same groups for both sides, and tally what their means differ by."""

    first: Setting
    second: Setting
    rows: int
    one_pass: bool

    def __call__(self, start: int, stop: int) -> PairedTally:
        sides = (self.first, self.second)
        # Kernels that would like different views of a point set, and inputs of different precision, would
        # draw different numbers: all get the same ones.
        views = {side.perturbation.view for side in sides}
        view = Normals if Normals in views else Uniforms
        dtype = np.result_type(*(side.perturbation.base.dtype for side in sides))
        # One forward pass serves two targets at the same points.
        asked = [list(sides)] if self.one_pass else [[side] for side in sides]
        a, b = (block for alike in asked for block in self._groups(alike, start, stop, view, dtype))
        both = a.averages is not None and b.averages is not None
        apart = tally_of_groups(
            self.first,
            a.means - b.means,
            Moments.of(a.averages - b.averages) if both else None,  # type: ignore[operator]
        )
        first, second = (
            tally_of_groups(side, block.means, None if block.averages is None else Moments.of(block.averages))
            for side, block in ((self.first, a), (self.second, b))
        )
        return PairedTally(apart.gradient, apart.views, apart.output, first, second)

    def _groups(
        self,
        alike: Sequence[Setting],
        start: int,
        stop: int,
        view: type[Normals] | type[Uniforms],
        dtype: np.dtype[Any],
    ) -> list[Grouped]:
        s, p = alike[0], alike[0].perturbation
        steps = p.steps(s.key.groups(s.sampler, start, stop, p.shape, dtype, view))
        importance = p.weights(steps)
        found = answers_of(alike, s.oracle, steps, self.rows)
        return [grouped(s, start, stop, gradients, values, importance) for values, gradients in found]


def difference(
    first: Side,
    second: Side,
    *,
    views: Mapping[str, ViewLike] | None = None,
    budget: Budget | None = None,
    rng: Rng = None,
    block: int | None = None,
    executor: Executor | None = None,
    in_flight: int | None = None,
    progress: ProgressCallback | None = None,
) -> Difference:
    """Estimate what two smoothed gradients differ by, on common random numbers.

    Two kernels, two models, two targets, two inputs or two samplers: group k of the one is drawn from the
    same random numbers as group k of the other, and the error bar is that of the groups' differences. Where
    the sides are alike, most of their errors cancel: ``correlation`` and ``variance_factor`` say how much.
    Sides of the same estimator, oracle and inputs, which differ in the held ``target``, share each forward
    pass, where the oracle is `Multitarget`.

    Parameters
    ----------
    first, second : Side
        Of inputs of the same shape. Samplers may differ, where their groups are of one size.
    views : mapping of View or linear callable
        Of the difference, and of each side.
    budget : Budget
        When to stop; both sides' evaluations count, and errors are those of the difference. Ten
        seconds by default.
    rng, executor, in_flight, progress
        As of `Pathwise.estimate`.
    block : int, optional
        Rows in each call of a model.

    Returns
    -------
    Difference
        ``gradient`` is the first less the second.

    Raises
    ------
    TypeError, ValueError
        If the sides cannot be compared, or an argument does not fit, before a model is called.

    Source: Glasserman 2003, "Monte Carlo methods in financial engineering", section 4.1 and 7.1.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Wave:
    ...     def value_and_gradient(self, points): return np.sin(points).sum(-1), np.cos(points)
    >>> narrow, wide = (mk.Pathwise(mk.Gaussian(width), mk.Independent()) for width in (0.50, 0.55))
    >>> apart = mk.difference(
    ...     mk.Side(narrow, Wave(), np.zeros(3)), mk.Side(wide, Wave(), np.zeros(3)),
    ...     budget=mk.Evaluations(4096), rng=0)
    >>> truth = np.exp(-0.5**2 / 2) - np.exp(-0.55**2 / 2)
    >>> bool((abs(apart.gradient - truth) < 4 * apart.standard_error).all()), apart.variance_factor > 20
    (True, True)
    """
    budget, key = as_budget(budget), Key.of(rng)
    for side in (first, second):
        if not isinstance(side, Side) or not isinstance(side.estimator, Pathwise):
            raise TypeError(f"{side!r} is no Side(Pathwise(...), oracle, inputs)")
        if side.estimator.weights is not None:
            raise ValueError("differences are of smoothed inputs: leave weights= out on both sides")
    a, b = (
        side.estimator._setting(side.oracle, side.inputs, side.held, views or {}, budget, key, by_host=True)
        for side in (first, second)
    )
    if a.group_size != b.group_size:
        raise ValueError(
            f"groups differ in size, {a.sampler} has {a.group_size} points and {b.sampler} {b.group_size}: "
            "what is compared group by group needs one size"
        )
    shapes = [[(leaf.name, leaf.shape) for leaf in side.perturbation.layout.leaves] for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the inputs differ in form, {shapes[0]} and {shapes[1]}, and have no difference")
    execution, one_pass = Execution(executor, in_flight, progress), _one_pass(first, second, a, b)
    pair = 2 * a.group_size
    budget.check(pair, (views or {}).keys(), max(side.sampler.fewest_groups for side in (a, b)))
    asked = block or first.estimator.block or second.estimator.block
    chosen = first.estimator._block(a, asked, budget)
    outcome = run(
        PairedTask(a, b, chosen.rows, one_pass),
        Plan(pair, chosen.groups, 0, budget.limit(pair)),
        budget,
        execution,
    )
    if outcome.tally is None or outcome.n_groups < 2:
        raise Interrupted(None)
    tally = outcome.tally
    assert isinstance(tally, PairedTally)
    by_clock = outcome.stopped is not None and outcome.stopped.by_clock
    stopped = "interrupted" if outcome.interrupted else str(outcome.stopped or budget)
    about = [
        provenance(side.estimator, setting, budget) | {"block": chosen.rows}
        for side, setting in ((first, a), (second, b))
    ]

    told = about[0] | {"estimator": "difference", "estimand": "first less second", "sides": about}

    def parts(own: Tally, size: int, told: dict[str, Any]) -> dict[str, Any]:
        return {
            "tally": own,
            "layout": a.perturbation.layout,
            "group_size": size,
            "seconds": outcome.seconds,
            "stopped": stopped,
            "partial": outcome.interrupted or by_clock,
            "provenance": told | {"n_evaluations": outcome.n_groups * size},
        }

    result = Difference(
        **parts(Tally(tally.gradient, tally.views, tally.output), pair, told),
        first=Estimate(**parts(tally.first, a.group_size, about[0])),
        second=Estimate(**parts(tally.second, b.group_size, about[1])),
    )
    if outcome.interrupted:
        raise Interrupted(result) from None
    return result


def _one_pass(first: Side, second: Side, a: Setting, b: Setting) -> bool:
    """Whether two sides differ in the held target alone, of an oracle that tells of several at once."""
    alike = first.estimator is second.estimator and first.inputs is second.inputs and a.oracle is b.oracle
    same = a.held.keys() == b.held.keys() and all(
        np.array_equal(values, b.held[name]) if name != "target" else values.shape == b.held[name].shape
        for name, values in a.held.items()
    )
    return alike and same and "target" in a.held and tells_of_several(a.oracle)
