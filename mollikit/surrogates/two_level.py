from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.pathwise import Pathwise
from mollikit.interruption import Interrupted, with_nothing_to_keep
from mollikit.layout import Layout
from mollikit.oracles import Anchored, GradientOracle
from mollikit.progress import Progress, ProgressCallback
from mollikit.strata import Stratified
from mollikit.surrogates.parts import derived
from mollikit.surrogates.products import Array
from mollikit.surrogates.two_level_estimate import TwoLevelEstimate

# Groups of each level that measure its spread, before the rest of the budget is split, and the fewest after.
_PILOT = 8
_REST = 4


@dataclass(frozen=True)
class Difference:
    """The gradient of a model less that of a cheaper one, at the same points."""

    fine: GradientOracle
    coarse: GradientOracle

    def value_and_gradient(self, points: Any, **held: Any) -> tuple[None, Any]:
        """No values, and differences of gradients in the points' own form."""
        _, fine = self.fine.value_and_gradient(points, **held)
        _, coarse = self.coarse.value_and_gradient(points, **held)
        if isinstance(points, Mapping):
            return None, {name: np.asarray(fine[name]) - np.asarray(coarse[name]) for name in points}
        return None, np.asarray(fine) - np.asarray(coarse)


@dataclass(frozen=True)
class TwoLevel:
    """Unbiased by a cheaper model: its smoothed gradient, and that of the difference at common points.

    grad f_K = E[grad c] + E[grad f - grad c]. The first is cheap, and the second needs few points where the
    two models' gradients agree. With p the price of the cheaper model's gradient, V its variance and V_D that
    of the difference, the budget is split so that the variance is least: (sqrt(V_D (1 + p)) + sqrt(V p))^2
    over the budget. It pays where that is below the variance of the model's own gradient. With the mean of
    the cheaper model's gradient known it is a control variate. How good the cheaper model is decides the
    error bar alone.

    The split is learnt from a pilot. On each level it stays in the estimate as a stratum of its own
    (`Stratified`), whose weight, the pilots' share of the budget, is fixed beforehand: pooled by numbers of
    points that depend on what it saw, it would bias the mean. With ``mean`` given nothing is split.

    Source: Giles 2008, "Multilevel Monte Carlo path simulation", equation 12 for the split.

    Parameters
    ----------
    pathwise : Pathwise
    coarse : GradientOracle
        The cheaper model; it takes the same inputs.
    price : float
        Cost of its gradient, in gradients of the model.
    mean : array (*shape), or mapping of arrays by input name, optional
        Its exact smoothed gradient, where that is known.

    Raises
    ------
    ValueError
        If the price is not positive.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Fine:
    ...     def value_and_gradient(self, x): return None, x**3 + 0.01 * np.sin(9 * x)
    >>> class Cheap:
    ...     def value_and_gradient(self, x): return None, x**3
    >>> two = mk.TwoLevel(mk.Pathwise(mk.Gaussian(0.5)), Cheap(), price=0.1)
    >>> estimate = two.estimate(Fine(), np.ones(3), budget=mk.Evaluations(4096), rng=0)
    >>> low, high = estimate.interval(0.999)      # the truth is 1 + 3 * 0.5^2, and next to none of the sine
    >>> bool(((low < 1.75) & (1.75 < high)).all()), estimate.coarse.n_evaluations > 4096
    (True, True)
    """

    pathwise: Pathwise
    coarse: GradientOracle
    price: float = field(kw_only=True)
    mean: ArrayLike | Mapping[str, ArrayLike] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.pathwise, Pathwise):
            raise TypeError(f"TwoLevel: {self.pathwise!r} is not a Pathwise: give Pathwise(Gaussian(0.1))")
        if not self.price > 0:
            raise ValueError(f"TwoLevel: price={self.price!r}; a gradient of the cheaper model has a cost")

    def _costs(self) -> list[float]:
        """Of a point on each level."""
        return [1 + self.price] if self.mean is not None else [1 + self.price, self.price]

    def _least(self, size: int) -> float:
        """Cost of the pilots and the fewest groups after them at an input of so many coordinates."""
        groups = _PILOT if self.mean is not None else _PILOT + self._fewest
        return groups * self.pathwise.sampler.group_size(size) * sum(self._costs())

    @property
    def _fewest(self) -> int:
        return max(_REST, self.pathwise.sampler.fewest_groups)

    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        budget: Budget = Evaluations(256),  # noqa: B008 - frozen
        rng: Rng = None,
        executor: Executor | None = None,
        progress: ProgressCallback | None = None,
    ) -> TwoLevelEstimate:
        """Estimate the smoothed gradient at one input.

        A pilot of 8 groups of each level measures their spreads and is kept; at least 4 follow on each.

        Parameters
        ----------
        oracle, inputs, held, rng, executor
            As in `Pathwise.estimate`.
        budget : Evaluations
            In gradients of the model, never exceeded.
        progress : callable, optional
            Called with a `Progress` after each block, such as ``ProgressBar()``; its evaluations are costs,
            and the error is known at the end.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, before a model is called.
        Interrupted
            On Ctrl-C, carrying the estimate so far; None before both pilots were whole.
        """
        began = time.perf_counter()
        key, layout = Key.of(rng), Layout.of(inputs)
        if not isinstance(budget, Evaluations):
            raise TypeError(
                f"TwoLevel: budget={budget!r}; a cost is split between two levels: give Evaluations(n)"
            )
        size = self.pathwise.sampler.group_size(layout.size)
        known = self._known(layout)
        costs, least = self._costs(), self._least(layout.size)
        if budget.n < least:
            raise ValueError(
                f"TwoLevel: {budget} holds less than {least / size / sum(costs):.0f} groups of {size} points "
                f"on each level: give at least Evaluations({int(np.ceil(least))})"
            )
        form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
        kept = {name: np.asarray(value) for name, value in (held or {}).items()}
        with with_nothing_to_keep():
            fine, coarse = (
                model.anchored(form, **kept) if isinstance(model, Anchored) else model
                for model in (oracle, self.coarse)
            )
        models: list[GradientOracle] = [Difference(fine, coarse), coarse][: len(costs)]
        levels: list[Estimate] = []

        def spent() -> float:
            return float(sum(e.n_evaluations * cost for e, cost in zip(levels, costs, strict=False)))

        def told(n: float, error: float, *, done: bool) -> None:
            if progress is not None:
                share = 1.0 if done else n / budget.n
                progress(Progress(round(n), time.perf_counter() - began, share, error, done))

        def run(level: int, n: int, part: int) -> Estimate:
            before = spent()
            return self.pathwise.estimate(
                models[level],
                inputs,
                held=held,
                budget=Evaluations(n),
                rng=derived(key, part),
                executor=executor,
                progress=lambda p: told(before + p.n_evaluations * costs[level], np.inf, done=False),
            )

        def estimated(*, partial: bool) -> TwoLevelEstimate:
            difference = levels[0].tally.gradient.mean
            return TwoLevelEstimate(
                layout=layout,
                mean=difference + (levels[1].tally.gradient.mean if known is None else known),
                coarse=levels[1] if known is None else None,
                difference=levels[0],
                n_evaluations=spent(),
                seconds=time.perf_counter() - began,
                partial=partial,
                provenance={
                    "estimator": type(self).__name__,
                    "price": self.price,
                    "mean_known": known is not None,
                    "budget": str(budget),
                    "seed": key.seed,
                    "item": key.item,
                    "levels": [dict(found.provenance) for found in levels],
                },
            )

        try:
            if known is not None:
                levels.append(run(0, int(budget.n / costs[0]) // size * size, 0))
            else:
                pilots = _PILOT * size * sum(costs)
                for k in range(len(models)):
                    levels.append(run(k, _PILOT * size, k))  # noqa: PERF401 - an interrupt keeps what is whole
                left = budget.n - least
                for k, share in enumerate(_shares(levels, costs)):
                    fewest = self._fewest * size
                    wanted = max(0.0, (budget.n - pilots) * share - fewest)
                    more = int(min(wanted, left / costs[k])) // size * size
                    left -= more * costs[k]
                    try:
                        levels[k] = _gone_on(levels[k], run(k, fewest + more, 2 + k), pilots / budget.n)
                    except Interrupted as interrupt:
                        if interrupt.partial is not None:
                            levels[k] = _gone_on(levels[k], interrupt.partial, pilots / budget.n)
                        raise
            estimate = estimated(partial=False)
            told(estimate.n_evaluations, estimate.relative_error, done=True)
            return estimate
        except KeyboardInterrupt as interrupt:
            if known is not None and isinstance(interrupt, Interrupted) and interrupt.partial is not None:
                levels.append(interrupt.partial)
            partial = estimated(partial=True) if len(levels) == len(models) else None
            raise Interrupted(partial) from None

    def _known(self, layout: Layout) -> Array | None:
        if self.mean is None:
            return None
        given = self.mean if isinstance(self.mean, Mapping) else {None: self.mean}
        shapes = {name: np.shape(values) for name, values in given.items()}
        wanted = {leaf.name: leaf.shape for leaf in layout.leaves}
        if shapes != wanted:
            raise ValueError(
                f"TwoLevel: mean has the shapes {list(shapes.items())}, and the input {list(wanted.items())}"
            )
        return layout.flatten(self.mean).astype(np.float64)


def _shares(pilots: list[Estimate], costs: list[float]) -> list[float]:
    """Gradients of each level for each unit of cost: as the root of its spread over its cost."""
    # Of one gradient, as the sampler draws them.
    spreads = [np.square(found.tally.gradient.standard_error).sum() * found.n_evaluations for found in pilots]
    whole = sum(np.sqrt(spread * cost) for spread, cost in zip(spreads, costs, strict=True))
    if whole == 0:
        return [1 / sum(costs)] * len(costs)
    return [float(np.sqrt(spread / cost) / whole) for spread, cost in zip(spreads, costs, strict=True)]


def _gone_on(pilot: Estimate, rest: Estimate, weight: float) -> Stratified:
    """Both parts of a level, the pilot with its weight."""
    n = pilot.n_evaluations + rest.n_evaluations
    about = {**rest.provenance, "n_evaluations": n}
    return Stratified.of((pilot, rest), (weight, 1 - weight), rest.stopped, about)
