from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mollikit.engine.run import Task
from mollikit.estimators.base import Setting
from mollikit.estimators.clusters import Clusters
from mollikit.estimators.perturbation import Perturbation
from mollikit.estimators.tallies import tally_of_groups
from mollikit.estimators.values import FromValues, evaluate
from mollikit.kernels import Kernel
from mollikit.moments import Moments, Tally
from mollikit.samplers import Independent, Sampler

# A density that is still above this share of its peak where its support ends has a jump there.
_JUMP = 1e-6


@dataclass(frozen=True)
class ScoreFunction(FromValues):
    """From values alone: grad f_K(x) = E[f(x + s t) (-K'(t) / K(t)) / s], t ~ K, with a baseline.

    From each value the mean of the values of the *other* units of its group is subtracted (a unit is a
    group of the sampler: one point, unless the sampler ties several together). The score has mean zero
    and the units are independent, so the estimate is unbiased whatever the model, jumps included; a
    baseline that held the point itself, or one tied to it, would not be.

    Its error grows with the root of the dimension: for a kernel that is symmetric and unimodal `Secant`
    needs some hundred times fewer evaluations on smooth models.

    Source: Mohamed et al. 2020, "Monte Carlo Gradient Estimation in Machine Learning", section 4; the
    leave-one-out baseline is that of Mnih and Rezende 2016, "Variational inference for Monte Carlo
    objectives".

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        Of finite Fisher information. Every coordinate must move.
    sampler : Sampler
        How the points are drawn; `Independent` by default: ties between points seldom help here.
    baseline : int
        Units in a group, at least 2: each has the mean of the others as its baseline, which costs a
        share 1 / (baseline - 1) of the variance. Error bars come from the spread of the groups.
    block : int, optional
        Rows in each call of the model.
    allow_poor : bool
        Take fewer than 2 d evaluations, with which the error is about as large as the gradient.

    Raises
    ------
    ValueError
        If a kernel has no finite Fisher information: Uniform, Triangular and Epanechnikov, whose
        smoothed gradients `Secant` estimates.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Steps:                             # no gradient anywhere would tell
    ...     def value(self, points): return np.sign(points).sum(-1)
    >>> estimate = mk.ScoreFunction(mk.Gaussian(1.0)).estimate(
    ...     Steps(), np.array([0.0, 1.0]), budget=mk.Evaluations(1 << 16), rng=0)
    >>> estimate.gradient.round(1)               # 2 phi(x) = 0.80, 0.48
    array([0.8, 0.5])
    """

    sampler: Sampler = field(default_factory=Independent)
    baseline: int = field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        if self.baseline < 2:
            raise ValueError(
                f"ScoreFunction: baseline={self.baseline!r}: a point needs another one for its baseline"
            )

    def _groups(self) -> Sampler:
        return Clusters(self.sampler, self.baseline)

    def _fewest(self, dimension: int) -> tuple[int, str]:
        return 2 * dimension, "with fewer than two for each coordinate the error is as large as the gradient"

    def _check(self, perturbation: Perturbation) -> None:
        super()._check(perturbation)
        for kernel, _ in perturbation.kernels:
            if not np.isfinite(kernel.fisher_information) or _jumps(kernel):
                raise ValueError(
                    f"ScoreFunction needs a kernel of finite Fisher information, and {kernel} has a density "
                    "that jumps or ends in a kink, so that its score misses a part of the gradient or has no "
                    "variance; use Secant, which needs no score, or a smooth kernel such as Gaussian"
                )

    def _task(self, setting: Setting, rows: int) -> Task:
        return ScoreFunctionTask(setting, rows, self.baseline)


@dataclass(frozen=True)
class ScoreFunctionTask:
    """Draw groups, ask for their values, weigh the scores with what each value exceeds its baseline."""

    setting: Setting
    rows: int
    baseline: int

    def __call__(self, start: int, stop: int) -> Tally:
        s, p, groups = self.setting, self.setting.perturbation, stop - start
        steps = p.steps(s.key.groups(s.sampler, start, stop, p.shape, p.base.dtype, p.view))
        scores = np.concatenate([kernel.score(steps[:, part]) for kernel, part in p.kernels], axis=1)
        values = evaluate(s, p.moved(steps, len(steps)), self.rows).reshape(groups, self.baseline, -1)
        units = values.mean(axis=2)
        others = (units.sum(axis=1, keepdims=True) - units) / (self.baseline - 1)
        excess = (values - others[..., None]).reshape(groups, 1, s.group_size)
        # One matrix product for each group, so that its bits do not depend on the block.
        sums = np.matmul(excess, scores.reshape(groups, s.group_size, -1).astype(np.float64, copy=False))
        gradients = sums[:, 0] / (-s.group_size * p.widths.astype(np.float64))
        return tally_of_groups(s, gradients, Moments.of(units.mean(axis=1)))


def _jumps(kernel: Kernel) -> bool:
    reach = kernel.support[1]
    return bool(np.isfinite(reach) and kernel.density(reach * (1 - 1e-12)) > _JUMP * kernel.density(0.0))
