from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mollikit.engine.run import Task
from mollikit.estimators.base import Estimator, Held, Setting
from mollikit.estimators.tallies import tally_of_points
from mollikit.moments import Tally
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
    second_moments : bool
        Tell the mean square and the variance of the gradients too (SmoothGrad-squared and VarGrad), of the
        map and of each view, as ``estimate.mean_square`` and ``estimate.variance``. Budgets may look at
        them: ``RelativeError(0.1, view="variance")``.

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
    second_moments: bool = field(default=False, kw_only=True)

    def _groups(self) -> Sampler:
        return self.sampler

    def _streams_second_moments(self) -> bool:
        return self.second_moments

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
        s, layout = self.setting, self.setting.perturbation.layout
        drawn = s.key.groups(
            s.sampler, start, stop, s.perturbation.shape, s.perturbation.base.dtype, s.perturbation.view
        )
        steps = s.perturbation.steps(drawn)
        weights = s.perturbation.weights(steps)
        points = layout.points(s.perturbation.moved(steps, self.rows))
        held = {name: np.broadcast_to(v, (self.rows, *v.shape)) for name, v in s.held.items()}
        values, answer = s.oracle.value_and_gradient(points, **held)
        return tally_of_points(s, start, stop, layout.gradients(answer, self.rows), values, weights)
