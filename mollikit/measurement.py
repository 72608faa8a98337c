from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mollikit.layout import Layout
from mollikit.moments import Moments, SecondMoments


@dataclass(frozen=True, eq=False)
class Measurement:
    """An estimate with its error bar: of a view of the gradient, or of the model's smoothed value.

    Attributes
    ----------
    value, standard_error : ndarray, or mapping of them by input name
        Of one shape.
    degrees_of_freedom : int
        Of the standard error: independent groups less one.
    relative_error : float
        L2 error over L2 norm, as estimated; infinite where nothing is resolved yet.
    """

    moments: Moments
    layout: Layout | None = None

    @property
    def value(self) -> Any:
        return self._formed(self.moments.mean)

    @property
    def standard_error(self) -> Any:
        return self._formed(self.moments.standard_error)

    @property
    def degrees_of_freedom(self) -> int:
        return self.moments.n - 1

    @property
    def relative_error(self) -> float:
        return self.moments.relative_error

    @property
    def mean_square(self) -> Positive:
        """Mean square over the points; see ``Pathwise(second_moments=True)``."""
        return Positive(self._second.mean_square, self.layout)

    @property
    def variance(self) -> Positive:
        """Variance over the points, without bias, its error by the jackknife over groups."""
        return Positive(self._second.variance, self.layout)

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence interval of each coordinate, by Student's t for the groups there are: (low, high).

        Parameters
        ----------
        level : float
            Share of the truths that such intervals cover, in (0, 1).
        """
        low, high = self._interval(student(level, self.degrees_of_freedom) * self.moments.standard_error)
        return self._formed(low), self._formed(high)

    def _interval(self, half: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.moments.mean - half, self.moments.mean + half

    def _formed(self, flat: NDArray[np.float64]) -> Any:
        return flat if self.layout is None else self.layout.unflatten(flat)

    @property
    def _second(self) -> SecondMoments:
        if not isinstance(self.moments, SecondMoments):
            raise AttributeError(
                "second moments were not asked for: they are streamed by Pathwise(..., second_moments=True)"
            )
        return self.moments


@dataclass(frozen=True, eq=False)
class Positive(Measurement):
    """A mean square or a variance: intervals are taken on the logarithm, where its law is less skewed.

    The ends are value * exp(-/+ t * standard_error / value), by the delta method; at few groups they cover
    more of the truths than value -/+ t * standard_error does, and they are never negative.
    """

    def _interval(self, half: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        value = self.moments.mean
        low, high = super()._interval(half)
        positive = value > 0  # importance weights can leave a variance that is not
        factor = np.exp(np.divide(half, value, out=np.zeros_like(value), where=positive))
        with np.errstate(invalid="ignore"):
            return np.where(positive, value / factor, low), np.where(positive, value * factor, high)


def student(level: float, degrees_of_freedom: int) -> float:
    """Half-width of an interval in standard errors."""
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: the level of an interval lies between 0 and 1, such as 0.95")
    return float(stdtrit(degrees_of_freedom, (1 + level) / 2))
