from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Moments:
    """The number, mean and sum of squared deviations M2 of independent arrays, in float64.

    Central moments are merged, never E[x^2] - E[x]^2, which cancels.

    Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
    """

    n: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """Moments of the rows of (n, ...)."""
        rows = np.asarray(values)
        mean = rows.mean(axis=0, dtype=np.float64)
        if len(rows) == 1:
            return cls(1, mean, np.zeros_like(mean))
        m2 = np.zeros_like(mean)
        for row in rows:
            deviation = row - mean
            deviation *= deviation
            m2 += deviation
        return cls(len(rows), mean, m2)

    def merged(self, other: Moments) -> Moments:
        """Moments of both."""
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = delta * (other.n / n)
        mean += self.mean
        delta *= delta
        delta *= self.n * other.n / n
        delta += self.m2
        delta += other.m2
        return Moments(n, mean, delta)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Of the mean; infinite for one array, which says nothing of its spread."""
        if self.n < 2:
            return np.full_like(self.mean, np.inf)
        return np.sqrt(self.m2 / (self.n * (self.n - 1)))

    @property
    def relative_error(self) -> float:
        """Estimate |mean - truth| / |truth| in L2, by E|mean|^2 = |truth|^2 + |se|^2.

        Infinite where the mean is not larger than its error, a mean of zero included.
        """
        if self.n < 2:
            return float("inf")
        noise = float(self.m2.sum()) / (self.n * (self.n - 1))
        signal = float(np.square(self.mean).sum()) - noise
        return float(np.sqrt(noise / signal)) if signal > 0 else float("inf")


@dataclass(frozen=True)
class Tally:
    """The moments of everything that a run streams: the gradient, each view, the model's value."""

    gradient: Moments
    views: Mapping[str, Moments]
    output: Moments | None

    def merged(self, other: Tally) -> Tally:
        """Tally of both."""
        both = self.output is not None and other.output is not None
        return Tally(
            self.gradient.merged(other.gradient),
            {name: moments.merged(other.views[name]) for name, moments in self.views.items()},
            self.output.merged(other.output) if both else None,  # type: ignore[union-attr, arg-type]
        )

    def relative_error(self, view: str | None) -> float:
        """Of the whole map (None), or of a view by name."""
        return (self.gradient if view is None else self.views[view]).relative_error
