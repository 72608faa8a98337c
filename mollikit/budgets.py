from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mollikit.moments import Moments

# Sequential stopping looks for the first time at this many groups and then at doublings: the variance
# of fewer groups is too rough to stop on, and each further look costs coverage.
FIRST_LOOK = 16


@dataclass(frozen=True)
class Status:
    """Where a run stands after a block, in block order: all that a budget may look at.

    Parameters
    ----------
    n_groups, previous_groups : int
        Groups merged so far, and before the last block.
    n_evaluations : int
        Points evaluated so far.
    seconds : float
        Since the run began.
    n_blocks : int
        Blocks merged so far, in this run.
    moments : callable
        Of the whole map (None) or of a view by name.
    """

    n_groups: int
    previous_groups: int
    n_evaluations: int
    seconds: float
    n_blocks: int
    moments: Callable[[str | None], Moments]

    @property
    def looked_at(self) -> bool:
        """Whether `FIRST_LOOK` groups or a doubling of them lie in the last block."""
        look = FIRST_LOOK << max(0, (self.n_groups // FIRST_LOOK).bit_length() - 1)
        return self.previous_groups < look <= self.n_groups


class Budget(ABC):
    """When to stop. ``a | b`` stops at the first of the two."""

    # Whether what it yields depends on the speed of the machine.
    by_clock: ClassVar[bool] = False

    @abstractmethod
    def reached(self, status: Status) -> Budget | None:
        """Return the budget that is used up here (itself, or one of its parts), or None."""

    def begun(self) -> Budget:
        """Return what looks at one run: the budget itself, unless it has to remember earlier looks."""
        return self

    @property
    def parts(self) -> tuple[Budget, ...]:
        """The budgets of which the first ends a run: the budget itself, unless several are joined."""
        return (self,)

    def left(self, evaluations: int, seconds: float) -> Budget:
        """Return what is left of the budget after a part of a run; errors are asked of the rest alone."""
        return self

    def limit(self, group_size: int) -> int | None:
        """Return the most groups that this budget allows, where that is known beforehand."""
        return None

    def check(  # noqa: B027 - most need no check
        self, group_size: int, views: Collection[str], fewest: int = 2
    ) -> None:
        """Raise ValueError where the budget does not fit the scheme or the views.

        Parameters
        ----------
        group_size : int
        views : names of the views
        fewest : int
            Groups that the scheme's error bar needs.
        """

    def deadline(self) -> float | None:
        """Seconds that the run may take, or None."""
        return None

    def share(self, status: Status) -> float:
        """Share of the budget that is spent, from 0 to 1, for a progress display."""
        return 0.0

    def __or__(self, other: Budget) -> Budget:
        return FirstOf((self, other))


@dataclass(frozen=True)
class Evaluations(Budget):
    """At most n evaluations of the model, rounded down to whole groups.

    Raises
    ------
    ValueError
        If n is not positive, or, at the estimator, allows fewer than two groups.
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"Evaluations({self.n!r}): at least one evaluation is needed")

    def reached(self, status: Status) -> Budget | None:
        group_size = status.n_evaluations // status.n_groups
        return self if status.n_groups >= self.limit(group_size) else None

    def left(self, evaluations: int, seconds: float) -> Budget:
        return Evaluations(max(1, self.n - evaluations))

    def limit(self, group_size: int) -> int:
        return int(self.n) // group_size

    def check(self, group_size: int, views: Collection[str], fewest: int = 2) -> None:
        if self.limit(group_size) < fewest:
            raise ValueError(
                f"{self} allows {self.limit(group_size)} groups of {group_size} points, and an error bar "
                f"needs {fewest}: give at least {fewest * group_size} evaluations, or a sampler with smaller "
                "groups"
            )

    def share(self, status: Status) -> float:
        return min(1.0, status.n_evaluations / self.n)


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
        _check_view(self, self.view, views)

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
        _check_view(self, self.view, views)

    def share(self, status: Status) -> float:
        widest = self._widest(status)
        return min(1.0, (self.e / widest) ** 2) if widest > 0 else 1.0

    def _widest(self, status: Status) -> float:
        moments = status.moments(self.view)
        if moments.n < 2:
            return float("inf")
        return float(stdtrit(moments.n - 1, (1 + self.level) / 2) * moments.standard_error.max())


@dataclass(frozen=True)
class StableRanking(Budget):
    """Stop when the k strongest coordinates, by absolute value, have stayed the same over doublings.

    *Descriptive only*: it says that the picture no longer changes, and nothing of the error; a ranking can
    stand still by chance. It is looked at from 16 groups on and at doublings; a run that is gone on with
    remembers none of its earlier looks.

    Parameters
    ----------
    k : int
    overlap : float
        Of the k coordinates that a look must have in common with the look before, in (0, 1].
    looks : int
        How many times in a row.
    view : str, optional
        The view whose coordinates are ranked, in place of the map.

    Raises
    ------
    ValueError
        If a number is out of range; at the first look, if there are no more than k coordinates.
    """

    k: int
    overlap: float = 1.0
    looks: int = 2
    view: str | None = None

    def __post_init__(self) -> None:
        if self.k < 1 or self.looks < 1 or not 0 < self.overlap <= 1:
            raise ValueError(f"{self}: k and looks are at least 1, and overlap lies in (0, 1]")

    def begun(self) -> Budget:
        return RankingWatch(self)

    def reached(self, status: Status) -> Budget | None:
        raise TypeError("StableRanking remembers the looks of one run: ask what begun() returns")

    def check(self, group_size: int, views: Collection[str], fewest: int = 2) -> None:
        _check_view(self, self.view, views)


@dataclass
class RankingWatch(Budget):
    """The looks of one run at a ranking."""

    budget: StableRanking
    strongest: NDArray[np.intp] | None = field(default=None, init=False)
    agreed: int = field(default=0, init=False)

    def reached(self, status: Status) -> Budget | None:
        if not status.looked_at:
            return None
        asked, values = self.budget, np.abs(status.moments(self.budget.view).mean).ravel()
        if values.size <= asked.k:
            raise ValueError(f"{asked}: there are {values.size} coordinates to rank, which is no more than k")
        # Ties are broken by the order of the coordinates.
        strongest = np.argsort(-values, kind="stable")[: asked.k]
        if self.strongest is not None:
            common = np.intersect1d(strongest, self.strongest, assume_unique=True).size
            self.agreed = self.agreed + 1 if common >= asked.overlap * asked.k else 0
        self.strongest = strongest
        return asked if self.agreed >= asked.looks else None

    def share(self, status: Status) -> float:
        return self.agreed / self.budget.looks


@dataclass(frozen=True)
class Seconds(Budget):
    """Stop before a further block would end after s seconds; at least two groups are evaluated.

    How far a run comes in a time depends on the machine: the Estimate is marked ``partial`` and records
    its evaluations and its block, with which the same bits can be had again.
    """

    s: float

    by_clock = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.s) and self.s > 0):
            raise ValueError(f"Seconds({self.s!r}): the time must be a positive number of seconds")

    def reached(self, status: Status) -> Budget | None:
        if status.n_groups < 2:
            return None
        return self if status.seconds * (1 + 1 / status.n_blocks) > self.s else None

    def left(self, evaluations: int, seconds: float) -> Budget:
        return Seconds(max(1e-3, self.s - seconds))

    def deadline(self) -> float:
        return self.s

    def share(self, status: Status) -> float:
        return min(1.0, status.seconds / self.s)


@dataclass(frozen=True)
class FirstOf(Budget):
    """Stop at the first of several budgets; written ``a | b``."""

    budgets: tuple[Budget, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.budgets))

    @property
    def parts(self) -> tuple[Budget, ...]:
        return self.budgets

    def left(self, evaluations: int, seconds: float) -> Budget:
        return FirstOf(tuple(budget.left(evaluations, seconds) for budget in self.budgets))

    def begun(self) -> Budget:
        return FirstOf(tuple(budget.begun() for budget in self.budgets))

    def reached(self, status: Status) -> Budget | None:
        return next((used for budget in self.budgets if (used := budget.reached(status)) is not None), None)

    def limit(self, group_size: int) -> int | None:
        return min((n for b in self.budgets if (n := b.limit(group_size)) is not None), default=None)

    def check(self, group_size: int, views: Collection[str], fewest: int = 2) -> None:
        for budget in self.budgets:
            budget.check(group_size, views, fewest)

    def deadline(self) -> float | None:
        return min((s for b in self.budgets if (s := b.deadline()) is not None), default=None)

    def share(self, status: Status) -> float:
        return max(budget.share(status) for budget in self.budgets)

    def __or__(self, other: Budget) -> Budget:
        return FirstOf((*self.budgets, other))


def _check_view(budget: Budget, view: str | None, views: Collection[str]) -> None:
    if view is not None and view not in views:
        known = f"the views are {sorted(views)}" if views else "no views were given"
        raise ValueError(f"{budget}: there is no view {view!r}; {known}")


def as_budget(budget: object) -> Budget:
    """Return the budget itself, or ten seconds for None.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if budget is None:
        return Seconds(10)
    if not isinstance(budget, Budget):
        raise TypeError(
            f"budget={budget!r} is not a budget: give Evaluations(64), Seconds(10) or "
            "RelativeError(0.1), or several of them joined by |"
        )
    return budget
