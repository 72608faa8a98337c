from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.pathwise import Pathwise
from mollikit.interruption import Interrupted, with_nothing_to_keep
from mollikit.layout import Layout
from mollikit.oracles import Anchored, GradientOracle
from mollikit.progress import Progress, ProgressCallback
from mollikit.surrogates.parts import derived
from mollikit.surrogates.record import BiasedEstimate, BiasedView, SurrogateMap
from mollikit.surrogates.shrinkage import Drawn
from mollikit.views import ViewLike, check_linear

Array = NDArray[np.float64]

# Folds whose spread tells a risk.
_FEWEST = 3


@dataclass(frozen=True)
class FromFolds(ABC):
    """What is estimated from independent unbiased maps, its risk among it.

    Parameters
    ----------
    pathwise : Pathwise
        How the unbiased maps are estimated. Each fold needs 2 groups of its sampler: on deep networks, where
        point sets gain nothing, ``Independent()`` lets few gradients do.
    folds : int
        Independent maps; at least 3, and 4 for the interval of the risk.
    """

    pathwise: Pathwise
    folds: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.pathwise, Pathwise):
            raise TypeError(
                f"{type(self).__name__}: {self.pathwise!r} is not a Pathwise: give Pathwise(Gaussian(0.1))"
            )

    @abstractmethod
    def _surrogate_cost(self) -> float:
        """Cost in gradients of what is computed beside the folds."""

    @abstractmethod
    def _surrogate(
        self, oracle: Any, inputs: Any, held: Mapping[str, ArrayLike] | None, rng: Rng
    ) -> SurrogateMap | None:
        """Make the surrogate, where there is one."""

    @abstractmethod
    def _fit(self, folds: Array, surrogate: Array | None, layout: Layout | None) -> Drawn:
        """Estimate from folds (K, D), of the map, or of a view's values where the layout is None."""

    @property
    @abstractmethod
    def _biased(self) -> str:
        """Say what biases the estimate."""

    @final
    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        budget: Budget = Evaluations(64),  # noqa: B008 - frozen
        rng: Rng = None,
        executor: Executor | None = None,
        progress: ProgressCallback | None = None,
    ) -> BiasedEstimate:
        """Estimate the smoothed gradient at one input, and the risk of that estimate.

        Parameters
        ----------
        oracle : GradientOracle
        inputs : array (*shape), or mapping of arrays by input name
            One input, no batch axis, of a floating dtype.
        held : mapping of arrays
            What the oracle takes beside the points, for this one input.
        views : mapping of View or linear callable
            Linear functionals of the gradient, each weighted for itself and with a risk of its own.
        budget : Evaluations
            In gradients, never exceeded: the surrogate is paid first (a forward pass counts a third), the
            rest is split among the folds.
        rng : int, (int, int), numpy.random.Generator or None
            The same seed gives the same bits.
        executor : concurrent.futures.Executor, optional
            Where the gradients are evaluated.
        progress : callable, optional
            Called with a `Progress` as the folds advance, such as ``ProgressBar()``; the error is known at
            the end.

        Returns
        -------
        BiasedEstimate

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, before the model is called; or if the oracle's answer does not.
        Interrupted
            On Ctrl-C, carrying the estimate of the folds that were whole, if there are 3, or None.
        """
        began = time.perf_counter()
        key, layout = Key.of(rng), Layout.of(inputs)
        evaluations = self._checked(budget, layout)
        for name, view in (views or {}).items():
            check_linear(name, view, layout.unflatten, layout.size)
        runs: list[Estimate] = []
        with with_nothing_to_keep():
            if isinstance(oracle, Anchored):
                form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
                oracle = oracle.anchored(form, **{name: np.asarray(v) for name, v in (held or {}).items()})
            surrogate = self._surrogate(oracle, inputs, held, derived(key, self.folds))
        spent = 0.0 if surrogate is None else surrogate.n_evaluations
        prior = None if surrogate is None else layout.flatten(surrogate.gradient).astype(np.float64)

        def told(n_gradients: int, error: float, *, done: bool) -> None:
            if progress is not None:
                n = spent + n_gradients
                share = 1.0 if done else n / (spent + self.folds * evaluations)
                progress(Progress(round(n), time.perf_counter() - began, share, error, done))

        def estimated(*, partial: bool) -> BiasedEstimate:
            maps = np.stack([run.tally.gradient.mean for run in runs])
            fit = self._fit(maps, prior, layout)
            n_gradients = sum(run.n_evaluations for run in runs)
            return BiasedEstimate(
                **_risk(fit),
                layout=layout,
                mean=fit.estimate,
                n_evaluations=n_gradients + spent,
                n_gradients=n_gradients,
                n_folds=len(runs),
                biased=self._biased if surrogate is None else f"{self._biased} {surrogate.biased}",
                seconds=time.perf_counter() - began,
                partial=partial,
                provenance={
                    "estimator": repr(self),
                    "budget": str(budget),
                    "seed": key.seed,
                    "item": key.item,
                    "weights": fit.weights.tolist(),
                    "unbiased": dict(runs[0].provenance),
                    "surrogate": None if surrogate is None else dict(surrogate.provenance),
                },
                views={name: self._view(view, layout, maps, prior) for name, view in (views or {}).items()},
            )

        try:
            for k in range(self.folds):
                before = sum(run.n_evaluations for run in runs)
                run = self.pathwise.estimate(
                    oracle,
                    inputs,
                    held=held,
                    budget=Evaluations(evaluations),
                    rng=derived(key, k),
                    executor=executor,
                    progress=lambda p, n=before: told(n + p.n_evaluations, np.inf, done=False),  # type: ignore[misc]
                )
                runs.append(run)
            estimate = estimated(partial=False)
            told(estimate.n_gradients, estimate.relative_error, done=True)
            return estimate
        except KeyboardInterrupt:
            partial = estimated(partial=True) if len(runs) >= _FEWEST else None
            raise Interrupted(partial) from None

    def check(self, budget: Budget, inputs: ArrayLike | Mapping[str, ArrayLike]) -> None:
        """Raise TypeError or ValueError where a budget does not suit the folds at an input."""
        self._checked(budget, Layout.of(inputs))

    def _checked(self, budget: Budget, layout: Layout) -> int:
        name = type(self).__name__
        if self.folds < _FEWEST:
            raise ValueError(f"{name}: folds={self.folds}; their spread takes at least {_FEWEST}")
        if not isinstance(budget, Evaluations):
            raise TypeError(
                f"{name}: budget={budget!r}; the folds share a number of gradients known beforehand: "
                "give Evaluations(n)"
            )
        left = int(budget.n - self._surrogate_cost())
        size = self.pathwise.sampler.group_size(layout.size)
        least = 2 * size * self.folds
        if left < least:
            enough = int(np.ceil(least + self._surrogate_cost()))
            raise ValueError(
                f"{name}: {budget} leaves {max(left, 0)} gradients beside the surrogate "
                f"({self._surrogate_cost():.4g}), and {self.folds} folds of 2 groups of {size} points need "
                f"{least}: give at least Evaluations({enough}), fewer folds, or a sampler with smaller "
                "groups, such as Independent()"
            )
        return left // self.folds

    def _view(self, view: ViewLike, layout: Layout, maps: Array, prior: Array | None) -> BiasedView:
        values = np.asarray(view(layout.unflatten(maps)), dtype=np.float64)
        rows = values.reshape(len(maps), -1)
        guess = None if prior is None else np.asarray(view(layout.unflatten(prior[None]))).reshape(-1)
        fit = self._fit(rows, guess, None)
        return BiasedView(value=fit.estimate.reshape(values.shape[1:]), **_risk(fit))


def _risk(fit: Drawn) -> dict[str, float]:
    return {
        "risk": fit.total_risk,
        "risk_standard_error": fit.uncertainty.standard_error,
        "risk_degrees_of_freedom": fit.uncertainty.degrees_of_freedom,
        "signal": fit.signal,
    }
