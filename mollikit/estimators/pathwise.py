from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.engine.run import Task
from mollikit.estimators.base import Estimator, Held, Setting
from mollikit.moments import Moments, Tally
from mollikit.oracles import GradientOracle
from mollikit.samplers import Recentred, Sampler


@dataclass(frozen=True)
class Pathwise(Estimator):
    """The mean of the gradient over perturbed inputs: grad f_K(x) = E[grad f(x + s t)], t ~ K.

    It is unbiased where f is locally Lipschitz; a model that jumps (a hard threshold, an argmax) has
    gradients that miss its jumps and needs an estimator from values.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks"; the name is that
    of Mohamed et al. 2020, "Monte Carlo Gradient Estimation in Machine Learning", section 5.

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        With which density each input is smoothed; inputs that a mapping leaves out are not moved.
    sampler : Sampler
        How the points are drawn; `Recentred` in groups of 8 by default.
    block : int, optional
        Rows in each call of the model, in whole groups; by default it follows the input's size.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> smooth = mk.Pathwise(inputs=mk.Gaussian(0.1), sampler=mk.Recentred(8))
    >>> estimate = smooth.estimate(Square(), np.array([1.0, 2.0]), budget=mk.Evaluations(64), rng=0)
    >>> estimate.gradient.round(6)               # linear gradients are exact under recentred points
    array([2., 4.])
    """

    sampler: Sampler = field(default_factory=Recentred)

    def _groups(self) -> Sampler:
        return self.sampler

    def _check_oracle(self, oracle: object) -> None:
        if not isinstance(oracle, GradientOracle):
            raise TypeError(
                f"{type(oracle).__name__} has no value_and_gradient(points), whose gradients Pathwise "
                "averages; for a model that gives values alone there are Secant and ScoreFunction"
            )

    def _probe(self, setting: Setting, points: Any, held: Held) -> None:
        setting.oracle.value_and_gradient(points, **held)

    def _task(self, setting: Setting, rows: int) -> Task:
        return PathwiseTask(setting, rows)


@dataclass(frozen=True)
class PathwiseTask:
    """Draw groups, ask for their gradients in one call, and tally the groups' means."""

    setting: Setting
    rows: int

    def __call__(self, start: int, stop: int) -> Tally:
        s, layout, groups = self.setting, self.setting.perturbation.layout, stop - start
        drawn = s.key.groups(
            s.sampler, start, stop, s.perturbation.shape, s.perturbation.base.dtype, s.perturbation.view
        )
        used = groups * s.group_size
        steps = s.perturbation.steps(drawn)
        weights = s.perturbation.weights(steps)
        points = layout.points(s.perturbation.moved(steps, self.rows))
        held = {name: np.broadcast_to(v, (self.rows, *v.shape)) for name, v in s.held.items()}
        values, answer = s.oracle.value_and_gradient(points, **held)
        gradients = layout.gradients(answer, self.rows)[:used]
        if weights is not None:
            gradients = gradients * weights[:, None]
        with np.errstate(invalid="ignore"):  # infinities are refused below
            means = gradients.reshape(groups, s.group_size, -1).mean(axis=1, dtype=np.float64)
            gradient = Moments.of(means)
        if not np.isfinite(gradient.mean).all():
            bad = np.flatnonzero(~np.isfinite(gradients).all(axis=1))
            raise FloatingPointError(
                f"the oracle's gradient is NaN or infinite at {len(bad)} of {used} points of groups {start} "
                f"to {stop - 1}: the model is not differentiable there, or a smaller scale is needed"
            )
        views = {name: Moments.of(view(layout.unflatten(means))) for name, view in s.views.items()}
        return Tally(
            gradient, views, None if values is None else self._output(np.asarray(values), weights, groups)
        )

    def _output(self, values: NDArray[Any], weights: NDArray[np.float64] | None, groups: int) -> Moments:
        if values.shape != (self.rows,):
            raise ValueError(
                f"the oracle's values have shape {values.shape}; {self.rows} points need ({self.rows},)"
            )
        used = groups * self.setting.group_size
        values = values[:used] if weights is None else values[:used] * weights
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise FloatingPointError(
                f"the oracle's value is NaN or infinite at {bad} of {used} points: it overflows there, "
                "or a smaller scale is needed; an oracle may return None for the value"
            )
        return Moments.of(values.reshape(groups, -1).mean(axis=1, dtype=np.float64))
