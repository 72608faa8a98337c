"""What the tests of the estimators from values share: models that give values alone, and z-scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2

import mollikit as mk


@dataclass(frozen=True)
class Values:
    """The values of an oracle that gives gradients too."""

    oracle: object

    def value(self, points, **held):
        return self.oracle.value_and_gradient(points, **held)[0]


@dataclass
class Counting:
    """A black box that keeps the numbers of rows and the points it was asked about."""

    oracle: object
    rows: list = field(default_factory=list)
    points: list = field(default_factory=list)

    def value(self, points, **held):
        self.rows.append(len(points))
        self.points.append(points.copy())
        return self.oracle.value(points, **held)


ALL_KERNELS = (
    mk.Gaussian,
    mk.Uniform,
    mk.Logistic,
    mk.Laplace,
    mk.Cauchy,
    mk.HyperbolicSecant,
    mk.StudentT,
    mk.Triangular,
    mk.Epanechnikov,
    mk.Bump,
)
WITHOUT_SCORE = (mk.Uniform, mk.Triangular, mk.Epanechnikov)


def is_unbiased(estimate, truth):
    """Whether every coordinate agrees within its error bar; false alarm at most 1e-4 (many groups)."""
    z = (np.asarray(estimate.gradient) - truth).ravel() / np.asarray(estimate.standard_error).ravel()
    return bool((np.square(z) <= chi2.isf(1e-4 / z.size, 1)).all())


def coverage(estimates, truth):
    """Share of the truths that 95% intervals cover, and its standard error over the runs."""
    shares = []
    for estimate in estimates:
        low, high = estimate.interval(0.95)
        shares.append(((low <= truth) & (truth <= high)).mean())
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(len(shares)))
