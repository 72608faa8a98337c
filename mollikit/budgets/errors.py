from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from mollikit.budgets.base import Budget, Status, check_view


@dataclass(frozen=True)
class RelativeError(Budget):
    """Stop when the relative L2 error of the map, or of a named view, is estimated at r or less.

    The error is sqrt(|se|^2 / (|gradient|^2 - |se|^2)), since E|estimate|^2 = |truth|^2 + |se|^2. It is
    looked at from 16 groups on and at doublings, at the end of the block in which they fall. A truth of
    exactly zero is never reached: join it with `Seconds` or `Evaluations`.
    """

    r: float
    view: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.r) and self.r > 0):
            raise ValueError(f"RelativeError({self.r!r}): the error must be a positive number, such as 0.1")

    def reached(self, status: Status) -> Budget | None:
        met = status.looked_at and status.moments(self.view).relative_error <= self.r
        return self if met else None

    def check(self, group_size: int, views: Collection[str], fewest: int = 2) -> None:
        check_view(self, self.view, views)

    def share(self, status: Status) -> float:
        # The error falls as the root of the evaluations, so the share spent grows as its inverse square.
        error = status.moments(self.view).relative_error
        return min(1.0, (self.r / error) ** 2) if error > 0 else 1.0


@dataclass(frozen=True)
class AbsoluteError(Budget):
    """Stop when the interval of every coordinate of the map, or of a named view, is within +- e.

    In the units of the gradient: t * standard_error <= e in all coordinates, with Student's t of the level.
    It is looked at from 16 groups on and at doublings. Intervals of independent and strongly skewed points
    (``Independent`` on a quantity of exponential tails, say) cover less after such a stop; groups of 8 do not
    show it.

    Parameters
    ----------
    e : float
    view : str, optional
    level : float
        Of the intervals.

    Raises
    ------
    ValueError
        If e is not positive or the level not in (0, 1); at the estimator, if there is no such view.
    """

    e: float
    view: str | None = None
    level: float = 0.95

    def __post_init__(self) -> None:
        if not (np.isfinite(self.e) and self.e > 0):
            raise ValueError(f"AbsoluteError({self.e!r}): the error must be a positive number")
        if not 0 < self.level < 1:
            raise ValueError(f"AbsoluteError(level={self.level!r}): a level lies between 0 and 1")

    def reached(self, status: Status) -> Budget | None:
        return self if status.looked_at and self._widest(status) <= self.e else None

    def check(self, group_size: int, views: Collection[str], fewest: int = 2) -> None:
        check_view(self, self.view, views)

    def share(self, status: Status) -> float:
        widest = self._widest(status)
        return min(1.0, (self.e / widest) ** 2) if widest > 0 else 1.0

    def _widest(self, status: Status) -> float:
        moments = status.moments(self.view)
        if moments.n < 2:
            return float("inf")
        return float(stdtrit(moments.n - 1, (1 + self.level) / 2) * moments.standard_error.max())
