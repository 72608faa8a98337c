from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mollikit.estimate import Estimate
from mollikit.measurement import Measurement

Floats = NDArray[np.float64]
# The whole map, among the quantities; the others are views by name.
MAP = "map"
# Coordinates at which intervals are held against the truth; more would say no more, since neighbours agree.
_WATCHED = 1024
# Of the intervals whose coverage is measured.
LEVEL = 0.95


def quantities(estimate: Estimate) -> dict[str, Measurement]:
    """Return the whole map, flat, and each view of an estimate."""
    return {MAP: Measurement(estimate.tally.gradient)} | estimate.views


@dataclass
class Track:
    """One scheme at one number of evaluations, for one quantity, over the rounds.

    Two rounds are independent and unbiased, so half the squared distance of a pair of them estimates the
    mean squared error of either, and their inner product the squared norm of the truth, both without
    bias, without the truth, and without trust in any error bar.
    """

    watched: NDArray[np.intp]
    squared_errors: list[float] = field(default_factory=list)
    inner_products: list[float] = field(default_factory=list)
    stated: list[float] = field(default_factory=list)
    means: list[Floats] = field(default_factory=list)
    errors: list[Floats] = field(default_factory=list)
    degrees_of_freedom: int = 1
    total: Floats | None = None
    first: Floats | None = None
    _waiting: Floats | None = None

    def add(self, measured: Measurement) -> None:
        """Take in one round's estimate."""
        mean, error = measured.value.ravel(), measured.standard_error.ravel()
        self.stated.append(float(error @ error))
        self.means.append(mean[self.watched])
        self.errors.append(error[self.watched])
        self.degrees_of_freedom = measured.degrees_of_freedom
        self.total = mean.copy() if self.total is None else self.total + mean
        if self.first is None:
            self.first = mean
        if self._waiting is None:
            self._waiting = mean
        else:
            apart = mean - self._waiting
            self.squared_errors.append(float(apart @ apart) / 2)
            self.inner_products.append(float(mean @ self._waiting))
            self._waiting = None


@dataclass
class Rounds:
    """Everything that the rounds measured: a track for each (scheme, evaluations, quantity), and the time."""

    tracks: dict[tuple[str, int, str], Track] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    groups: dict[tuple[str, int], int] = field(default_factory=dict)
    used: dict[tuple[str, int], int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def add(
        self,
        estimates: Mapping[tuple[str, int], Estimate],
        seconds: Mapping[str, float],
        spent: Mapping[str, int],
    ) -> None:
        """Take in one round: an estimate of each scheme at each number of evaluations, and what each cost."""
        self.spent.update(spent)
        for (scheme, n), estimate in estimates.items():
            self.groups[scheme, n] = estimate.n_groups
            self.used[scheme, n] = estimate.n_evaluations
            leaves = estimate.layout.leaves
            for quantity, measured in quantities(estimate).items():
                self.shapes[quantity] = measured.value.shape
                if quantity == MAP and len(leaves) == 1:
                    self.shapes[quantity] = leaves[0].shape
                key = scheme, n, quantity
                if key not in self.tracks:
                    self.tracks[key] = Track(_watched(measured.value.size))
                self.tracks[key].add(measured)
        for scheme, each in seconds.items():
            self.seconds[scheme].append(each)
        self.count += 1

    def squared_norm(self, quantity: str) -> float:
        """Estimate |truth|^2 of a quantity, without bias."""
        products = [p for (_, _, q), t in self.tracks.items() if q == quantity for p in t.inner_products]
        return float(np.mean(products))

    def truth(self, quantity: str, schemes: Sequence[str], n: int) -> Floats:
        """Return the mean of everything at the largest number of evaluations."""
        totals = [t for s in schemes if (t := self.tracks[s, n, quantity].total) is not None]
        return np.asarray(np.mean(totals, axis=0) / self.count)

    def coverage(self, key: tuple[str, int, str], schemes: Sequence[str], n: int) -> tuple[float, float]:
        """Share of the truths that a scheme's intervals cover, and its standard error over the rounds.

        The truth of a round is the mean of all the other rounds, of all schemes (in a round they share
        their random numbers), whose own error widens the intervals.
        """
        track = self.tracks[key]
        each = np.mean([self.tracks[s, n, key[2]].means for s in schemes], axis=0)
        others = (each.sum(axis=0) - each) / (len(each) - 1)
        spread = np.var(each, axis=0, ddof=1) / (len(each) - 1)
        own, normal = (float(stdtrit(f, (1 + LEVEL) / 2)) for f in (track.degrees_of_freedom, np.inf))
        reach = np.sqrt(np.square(own * np.asarray(track.errors)) + normal**2 * spread)
        covered = (np.abs(np.asarray(track.means) - others) <= reach).mean(axis=1)
        return float(covered.mean()), float(covered.std(ddof=1) / np.sqrt(len(covered)))


def _watched(size: int) -> Any:
    return np.unique(np.linspace(0, size - 1, min(size, _WATCHED)).astype(np.intp))
