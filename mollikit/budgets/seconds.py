from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mollikit.budgets.base import Budget, Status


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
