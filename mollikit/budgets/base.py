from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

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


def check_view(budget: Budget, view: str | None, views: Collection[str]) -> None:
    """Raise ValueError where a budget looks at a view that is not there."""
    if view is not None and view not in views:
        known = f"the views are {sorted(views)}" if views else "no views were given"
        raise ValueError(f"{budget}: there is no view {view!r}; {known}")
