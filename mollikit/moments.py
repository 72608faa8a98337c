from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# What a budget may call them by, beside the views.
SECOND = frozenset({"mean_square", "variance"})
# Exponents (j, k) of the central sums that are kept, sum (v - mean v)^j (m - mean m)^k, and their names.
_SUMS = {(0, 2): "m2", (0, 3): "m3", (0, 4): "m4", (1, 1): "c11", (1, 2): "c12", (2, 0): "within_m2"}


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

    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """Names of the arrays that make it up."""
        return tuple(field.name for field in fields(cls) if field.name != "n")


@dataclass(frozen=True)
class SecondMoments(Moments):
    """Moments of the means of groups, and what it takes to tell the variance of the points inside them.

    With m the mean of a group, v = mean (x - m)^2 inside it and q = mean x^2, the law of total variance gives

        Var[x] = E[v] + Var[m],    estimated without bias by  mean v + sum (m - mean m)^2 / (G - 1)

    over G groups, however the points of a group depend on each other. (It is M2 / N + SE^2, with M2 taken
    over all N points.) Its standard error is the jackknife over groups, exactly: leaving out a group moves
    the estimate by (v - mean v + G / (G - 2) (d^2 - mean d^2)) / (G - 1), d = m - mean m, whose sum of
    squares is had from central sums up to the fourth order.

    Source: Efron and Stein 1981, "The jackknife estimate of variance"; the merging of central sums: Pébay
    2008, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
    statistical moments".

    Attributes
    ----------
    within, within_m2 : ndarray
        Mean of v, and the sum of its squared deviations.
    m3, m4, c11, c12 : ndarray
        Sums of d^3, d^4, (v - mean v) d and (v - mean v) d^2.
    square, square_m2 : ndarray
        Mean of q, and the sum of its squared deviations.
    """

    m3: NDArray[np.float64]
    m4: NDArray[np.float64]
    within: NDArray[np.float64]
    within_m2: NDArray[np.float64]
    c11: NDArray[np.float64]
    c12: NDArray[np.float64]
    square: NDArray[np.float64]
    square_m2: NDArray[np.float64]

    @classmethod
    def of_points(
        cls, means: NDArray[np.float64], points: ArrayLike, weights: NDArray[np.float64] | None = None
    ) -> SecondMoments:
        """Moments of groups from their means (G, ...), points (G, g, ...) and importance weights (G, g)."""
        rows = np.asarray(points)
        if weights is None:
            squares = np.square(rows, dtype=np.float64).mean(axis=1)
            within = np.square(rows - means[:, None]).mean(axis=1)
        else:
            shares = weights.reshape(*weights.shape, *(1,) * (rows.ndim - 2))
            squares = (shares * np.square(rows, dtype=np.float64)).mean(axis=1)
            # The weights' own noise is of the order of means^2, so that nothing is lost by cancellation.
            within = squares - np.square(means)
        return cls.of_groups(means, within, squares)

    @classmethod
    def of_groups(
        cls, means: NDArray[np.float64], within: NDArray[np.float64], squares: NDArray[np.float64]
    ) -> SecondMoments:
        """Moments of groups from their means, mean squared deviations and mean squares, all (G, ...)."""
        first, v, q = Moments.of(means), Moments.of(within), Moments.of(squares)
        d, e = means - first.mean, within - v.mean
        d2 = d * d
        return cls(
            n=len(means),
            mean=first.mean,
            m2=first.m2,
            within=v.mean,
            within_m2=v.m2,
            square=q.mean,
            square_m2=q.m2,
            m3=(d2 * d).sum(axis=0),
            m4=(d2 * d2).sum(axis=0),
            c11=(e * d).sum(axis=0),
            c12=(e * d2).sum(axis=0),
        )

    def merged(self, other: Moments) -> SecondMoments:
        """Moments of both.

        Raises
        ------
        TypeError
            If the other does not tell of the points inside its groups.
        """
        if not isinstance(other, SecondMoments):
            raise TypeError("these moments tell of the variance of the points, and the others do not")
        first = super().merged(other)
        v = Moments(self.n, self.within, self.within_m2).merged(
            Moments(other.n, other.within, other.within_m2)
        )
        q = Moments(self.n, self.square, self.square_m2).merged(
            Moments(other.n, other.square, other.square_m2)
        )
        parts = [part._about(first.mean, v.mean) for part in (self, other)]
        return SecondMoments(
            n=first.n,
            mean=first.mean,
            m2=first.m2,
            within=v.mean,
            within_m2=v.m2,
            square=q.mean,
            square_m2=q.m2,
            **{_SUMS[jk]: parts[0](*jk) + parts[1](*jk) for jk in ((0, 3), (0, 4), (1, 1), (1, 2))},
        )

    def _about(
        self, mean: NDArray[np.float64], within: NDArray[np.float64]
    ) -> Callable[[int, int], NDArray[np.float64]]:
        """Return the sums about another mean, by the binomial theorem."""
        a, b = self.mean - mean, self.within - within

        def central(j: int, k: int) -> Any:
            if (j, k) == (0, 0):
                return self.n
            return getattr(self, _SUMS[j, k]) if j + k > 1 else 0.0

        def about(j: int, k: int) -> NDArray[np.float64]:
            total = np.zeros_like(self.mean)
            for p in range(j + 1):
                for r in range(k + 1):
                    total += comb(j, p) * comb(k, r) * b ** (j - p) * a ** (k - r) * central(p, r)
            return total

        return about

    @property
    def mean_square(self) -> Moments:
        """Moments of the groups' mean squares."""
        return Moments(self.n, self.square, self.square_m2)

    @property
    def variance(self) -> Moments:
        """Moments of the jackknife's pseudo-values of the variance; fewer than three groups tell no error."""
        n = self.n
        if n < 3:
            spread = self.m2 / max(n - 1, 1)
            return Moments(n, self.within + spread, np.full_like(self.mean, np.inf))
        c = n / (n - 2)
        squares = self.within_m2 + 2 * c * self.c12 + c**2 * (self.m4 - self.m2**2 / n)
        return Moments(n, self.within + self.m2 / (n - 1), np.maximum(squares, 0.0))


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

    @property
    def names(self) -> set[str]:
        """What `named` knows, beside the map."""
        return set(self.views) | (SECOND if isinstance(self.gradient, SecondMoments) else set())

    def named(self, view: str | None) -> Moments:
        """Moments of the whole map (None), of a view by name, or of a second moment of the map (`SECOND`)."""
        if isinstance(self.gradient, SecondMoments) and view in SECOND:
            return self.gradient.variance if view == "variance" else self.gradient.mean_square
        return self.gradient if view is None else self.views[view]
