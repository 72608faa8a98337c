from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True, eq=False, kw_only=True)
class StatedRisk:
    """A squared error as estimated from independent folds, and how well it is known.

    Attributes
    ----------
    risk : float
        Estimate of |estimate - truth|^2, summed over the coordinates; itself random, it can come out below
        zero where few gradients look at a small error.
    risk_standard_error : float
        Of the risk about the real squared error; infinite for fewer than 4 folds.
    risk_degrees_of_freedom : float
        Of that standard error.
    signal : float
        Unbiased estimate of |truth|^2.
    """

    risk: float
    risk_standard_error: float
    risk_degrees_of_freedom: float
    signal: float

    @property
    def relative_error(self) -> float:
        """Sqrt(risk / |truth|^2), as estimated; infinite where the signal is not resolved, 0 below zero."""
        return self._relative(self.risk)

    def risk_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the squared error, by Student's t; never below zero.

        Of normal folds, of folds with the tails of Student's t of 4 degrees of freedom, and of folds whose
        noise differs by direction, intervals of 95% covered 91 to 100% of the squared errors of audits and
        92 to 100% of those of drawn maps: least where the bias is as large as the noise.

        Parameters
        ----------
        level : float
            Share of the squared errors that such intervals cover, in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level!r}: the level of an interval lies between 0 and 1, such as 0.95")
        half = float(stdtrit(self.risk_degrees_of_freedom, (1 + level) / 2)) * self.risk_standard_error
        return max(0.0, self.risk - half), max(0.0, self.risk + half)

    def relative_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the relative error; the noise of the signal, which is less, is left out."""
        low, high = self.risk_interval(level)
        return self._relative(low), self._relative(high)

    def _relative(self, risk: float) -> float:
        return float(np.sqrt(max(risk, 0.0) / self.signal)) if self.signal > 0 else float("inf")

    @property
    def told(self) -> str:
        """The relative error with its interval of 95%, in words."""
        if self.signal <= 0:
            return "unresolved"
        low, high = (f"{100 * end:.3g}" if np.isfinite(end) else "?" for end in self.relative_interval())
        return f"{100 * self.relative_error:.3g}% ({low} to {high}%)"
