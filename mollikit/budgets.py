from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
    relative_error : callable
        Of the whole map (None) or of a view by name.
    """

    n_groups: int
    previous_groups: int
    n_evaluations: int
    seconds: float
    n_blocks: int
    relative_error: Callable[[str | None], float]


class Budget(ABC):
    """When to stop. ``a | b`` stops at the first of the two."""

    # Whether what it yields depends on the speed of the machine.
    by_clock: ClassVar[bool] = False

    @abstractmethod
    def reached(self, status: Status) -> Budget | None:
        """Return the budget that is used up here (itself, or one of its parts), or None."""

    def limit(self, group_size: int) -> int | None:
        """Return the most groups that this budget allows, where that is known beforehand."""
        return None

    def check(self, group_size: int, views: Collection[str]) -> None:  # noqa: B027 - most need no check
        """Raise ValueError where the budget does not fit the scheme or the views."""

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

    def limit(self, group_size: int) -> int:
        return int(self.n) // group_size

    def check(self, group_size: int, views: Collection[str]) -> None:
        if self.limit(group_size) < 2:
            raise ValueError(
                f"{self} allows {self.limit(group_size)} groups of {group_size} points, and an error bar "
                f"needs 2: give at least {2 * group_size} evaluations, or a sampler with smaller groups"
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
        # Is there a doubling of the first look in (previous_groups, n_groups]?
        looks = FIRST_LOOK << max(0, (status.n_groups // FIRST_LOOK).bit_length() - 1)
        due = status.previous_groups < looks <= status.n_groups
        return self if due and status.relative_error(self.view) <= self.r else None

    def check(self, group_size: int, views: Collection[str]) -> None:
        if self.view is not None and self.view not in views:
            known = f"the views are {sorted(views)}" if views else "no views were given"
            raise ValueError(f"{self}: there is no view {self.view!r}; {known}")

    def share(self, status: Status) -> float:
        # The error falls as the root of the evaluations, so the share spent grows as its inverse square.
        error = status.relative_error(self.view)
        return min(1.0, (self.r / error) ** 2) if error > 0 else 1.0


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

    def reached(self, status: Status) -> Budget | None:
        return next((used for budget in self.budgets if (used := budget.reached(status)) is not None), None)

    def limit(self, group_size: int) -> int | None:
        return min((n for b in self.budgets if (n := b.limit(group_size)) is not None), default=None)

    def check(self, group_size: int, views: Collection[str]) -> None:
        for budget in self.budgets:
            budget.check(group_size, views)

    def deadline(self) -> float | None:
        return min((s for b in self.budgets if (s := b.deadline()) is not None), default=None)

    def share(self, status: Status) -> float:
        return max(budget.share(status) for budget in self.budgets)

    def __or__(self, other: Budget) -> Budget:
        return FirstOf((*self.budgets, other))
