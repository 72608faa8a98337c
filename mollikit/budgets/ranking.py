from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mollikit.budgets.base import Budget, Status, check_view


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
        check_view(self, self.view, views)


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
