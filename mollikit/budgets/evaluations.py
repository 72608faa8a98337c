from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mollikit.budgets.base import Budget, Status


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
