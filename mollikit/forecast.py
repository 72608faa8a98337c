from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from mollikit.budgets import FIRST_LOOK, AbsoluteError, Budget, RelativeError

if TYPE_CHECKING:
    from mollikit.estimate import Estimate


@dataclass(frozen=True)
class Forecast:
    """How many evaluations a wanted error takes, as foretold by an estimate.

    Attributes
    ----------
    evaluations : float
        From the start; infinite where the estimate has resolved nothing yet.
    low, high : float
        An interval of 95% for them, or more: it is taken as if all errors had one direction, which is the
        worst that they can do.
    stop : float
        Evaluations at which the budget would look and stop: 16 groups and their doublings.
    seconds : float
        That many evaluations take at the estimate's own rate, from the start.
    """

    evaluations: float
    low: float
    high: float
    stop: float
    seconds: float

    @classmethod
    def of(cls, estimate: Estimate, budget: Budget) -> Forecast:
        """Foretell what a budget of an error takes; see `Estimate.forecast`."""
        if not isinstance(budget, RelativeError | AbsoluteError):
            raise TypeError(f"{budget!r} is no error to be foretold: give RelativeError or AbsoluteError")
        budget.check(estimate.group_size, estimate.tally.names)
        moments = estimate.tally.named(budget.view)
        groups, now = moments.n, estimate.n_evaluations
        # Of the logarithm: the spread of n groups has the relative variance 2 / (n - 1), and the squared norm
        # of a mean with the relative error r that of (2 r)^2, where errors lie along one direction.
        spread = 2 / (groups - 1)
        if isinstance(budget, RelativeError):
            error = moments.relative_error
            factor, variance = (error / budget.r) ** 2, spread + (2 * error) ** 2
        else:
            widest = float(moments.standard_error.max())
            factor, variance = 1.0, spread
            for _ in range(50):  # Student's t depends on the answer: a contraction
                t = float(stdtrit(max(groups * factor - 1, 1), (1 + budget.level) / 2))
                factor = max((t * widest / budget.e) ** 2, 2 / groups)
        needed = max(now * factor, 2.0 * estimate.group_size)
        if not np.isfinite(needed):
            return cls(np.inf, float(now), np.inf, np.inf, np.inf)
        reach = np.exp(stdtrit(groups - 1, 0.975) * np.sqrt(variance))
        first = FIRST_LOOK * estimate.group_size
        stop = first * 2 ** max(0, int(np.ceil(np.log2(needed / first) - 1e-9)))
        return cls(
            needed, float(needed / reach), float(needed * reach), float(stop), needed * estimate.seconds / now
        )

    def __str__(self) -> str:
        if not np.isfinite(self.evaluations):
            return "more than can be told: nothing is resolved yet"
        return (
            f"{self.evaluations:,.0f} evaluations ({self.low:,.0f} to {self.high:,.0f}), "
            f"{self.seconds:,.1f} s at this rate"
        )
