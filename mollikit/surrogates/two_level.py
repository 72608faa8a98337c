from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.pathwise import Pathwise
from mollikit.layout import Layout
from mollikit.oracles import Anchored, GradientOracle
from mollikit.surrogates.folds import derived

# Groups of each level that measure its spread, before the rest of the budget is split.
_PILOT = 8


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


@dataclass(frozen=True, eq=False)
class TwoLevelEstimate:
    """An unbiased estimate from two strata, with the error bars of their sum.

    Attributes
    ----------
    gradient, standard_error : ndarray, or mapping of them by input name
        Of the input's shape, float64.
    relative_error : float
        As of `Estimate`.
    n_evaluations : float
        Cost, in gradients of the model.
    coarse : Estimate or None
        Of the cheaper model; None where its mean was given.
    difference : Estimate
        Of the model less the cheaper one.
    seconds : float
    provenance : dict
    """

    layout: Layout
    mean: NDArray[np.float64]
    coarse: Estimate | None
    difference: Estimate
    n_evaluations: float
    seconds: float
    provenance: Mapping[str, Any]

    @property
    def gradient(self) -> Any:
        return self.layout.unflatten(self.mean)

    @property
    def standard_error(self) -> Any:
        return self.layout.unflatten(np.sqrt(self._variances.sum(axis=0)))

    @property
    def relative_error(self) -> float:
        noise = float(self._variances.sum())
        signal = float(np.square(self.mean).sum()) - noise
        return float(np.sqrt(noise / signal)) if signal > 0 else float("inf")

    @property
    def _levels(self) -> list[Estimate]:
        return [self.difference] if self.coarse is None else [self.coarse, self.difference]

    @property
    def _variances(self) -> NDArray[np.float64]:
        return np.stack([np.square(level.tally.gradient.standard_error) for level in self._levels])

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence interval of each coordinate, by Student's t with the degrees of freedom of the sum.

        Source: Welch 1947, "The generalization of 'Student's' problem when several different population
        variances are involved".
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level!r}: the level of an interval lies between 0 and 1, such as 0.95")
        variances = self._variances
        freedom = np.array([found.degrees_of_freedom for found in self._levels])[:, None]
        parts = (np.square(variances) / freedom).sum(axis=0)
        total = variances.sum(axis=0)
        degrees = np.divide(np.square(total), parts, out=np.full_like(total, freedom.min()), where=parts > 0)
        half = stdtrit(degrees, (1 + level) / 2) * np.sqrt(total)
        return self.layout.unflatten(self.mean - half), self.layout.unflatten(self.mean + half)

    def __repr__(self) -> str:
        error = self.relative_error
        told = f"{100 * error:.3g}%" if np.isfinite(error) else "unresolved"
        counts = " + ".join(str(level.n_evaluations) for level in self._levels)
        return (
            f"TwoLevelEstimate(error {told}, the cost of {self.n_evaluations:.4g} gradients: {counts} in "
            f"{len(self._levels)} levels, {self.seconds:.2g} s)"
        )


@dataclass(frozen=True)
class TwoLevel:
    """Unbiased by a cheaper model: its smoothed gradient, and that of the difference at common points.

    grad f_K = E[grad c] + E[grad f - grad c]. The first is cheap, and the second needs few points where the
    two models' gradients agree. With p the price of the cheaper model's gradient, V its variance and V_D that
    of the difference, the budget is split so that the variance is least: (sqrt(V_D (1 + p)) + sqrt(V p))^2
    over the budget. It pays where that is below the variance of the model's own gradient. With the mean of
    the cheaper model's gradient known it is a control variate. Nothing is biased: how good the cheaper model
    is decides the error bar alone.

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
        if not self.price > 0:
            raise ValueError(f"TwoLevel: price={self.price!r}; a gradient of the cheaper model has a cost")

    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        budget: Budget = Evaluations(256),  # noqa: B008 - frozen
        rng: Rng = None,
        executor: Executor | None = None,
    ) -> TwoLevelEstimate:
        """Estimate the smoothed gradient at one input.

        A pilot of 8 groups of each level measures their spreads and is kept.

        Parameters
        ----------
        oracle, inputs, held, rng, executor
            As in `Pathwise.estimate`.
        budget : Evaluations
            In gradients of the model, never exceeded.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, before a model is called.
        """
        began = time.perf_counter()
        key, layout = Key.of(rng), Layout.of(inputs)
        if not isinstance(budget, Evaluations):
            raise TypeError(
                f"TwoLevel: budget={budget!r}; a cost is split between two levels: give Evaluations(n)"
            )
        size = self.pathwise.sampler.group_size(layout.size)
        known = None if self.mean is None else layout.flatten(self.mean).astype(np.float64)
        costs = [1 + self.price] if known is not None else [1 + self.price, self.price]
        least = _PILOT * size * sum(costs)
        if budget.n < least:
            raise ValueError(
                f"TwoLevel: {budget} holds no pilot of {_PILOT} groups of {size} points on each level: "
                f"give at least Evaluations({int(np.ceil(least))})"
            )
        form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
        kept = {name: np.asarray(value) for name, value in (held or {}).items()}
        fine, coarse = (
            model.anchored(form, **kept) if isinstance(model, Anchored) else model
            for model in (oracle, self.coarse)
        )
        models: list[GradientOracle] = [Difference(fine, coarse), coarse][: len(costs)]

        def run(level: int, n: int, part: int) -> Estimate:
            return self.pathwise.estimate(
                models[level],
                inputs,
                held=held,
                budget=Evaluations(n),
                rng=derived(key, part),
                executor=executor,
            )

        levels = [run(k, _PILOT * size, k) for k in range(len(models))]
        # Of one gradient, as the sampler draws them.
        spreads = [
            np.square(found.tally.gradient.standard_error).sum() * found.n_evaluations for found in levels
        ]
        whole = sum(np.sqrt(spread * cost) for spread, cost in zip(spreads, costs, strict=True))
        left = budget.n - least
        for k, (spread, cost) in enumerate(zip(spreads, costs, strict=True)):
            share = np.sqrt(spread / cost) / whole if whole > 0 else 1 / sum(costs)
            more = int(min(budget.n * share - _PILOT * size, left / cost)) // size * size
            if more >= 2 * size:
                left -= more * cost
                rest = run(k, more, 2 + k)
                levels[k] = replace(rest, tally=levels[k].tally.merged(rest.tally))
        mean = levels[0].tally.gradient.mean + (levels[1].tally.gradient.mean if known is None else known)
        return TwoLevelEstimate(
            layout=layout,
            mean=mean,
            coarse=levels[1] if known is None else None,
            difference=levels[0],
            n_evaluations=sum(e.n_evaluations * cost for e, cost in zip(levels, costs, strict=True)),
            seconds=time.perf_counter() - began,
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
