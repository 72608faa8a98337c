"""95% intervals cover 94 to 96% of the truths for the nested design too: they count groups of models.

As in test_coverage, the bands are widened by four standard errors of the measured coverage, a false alarm in
16,000; --full measures it to two tenths of a percent.
"""

from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk
from tests.core.test_coverage import assert_between
from tests.core.weighted_forms import KERNEL, TRUTH, X, amplitudes

# Amplitudes that vary by half under models, of which each is seen by 8 inputs.
LAW = mk.Gaussian(mk.OfMagnitude(0.5))
N = 256
TARGET = 0.065  # reached at about 32 groups, between two looks
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(4))

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
seeds_and_slack = pytest.mark.parametrize(
    ("seeds", "sure"), [(250, 4.0), pytest.param(5000, 1.0, marks=pytest.mark.full)]
)


def runs(models, budget, seeds, **options):
    smooth = mk.Pathwise(KERNEL, weights=LAW, weights_sampler=models, **options)
    return (smooth.estimate(amplitudes(), X, budget=budget, rng=seed) for seed in range(seeds))


@seeds_and_slack
@every_sampler
def test_coverage_at_fixed_n(sampler, seeds, sure):
    assert_between(runs(sampler, mk.Evaluations(N), seeds), TRUTH, 0.94, 0.96, sure)


@seeds_and_slack
def test_coverage_after_sequential_stopping(seeds, sure):
    # Blocks of one group, so that every look counts; the target makes runs stop at several looks.
    estimates = list(runs(mk.Antithetic(), mk.RelativeError(TARGET), seeds, block=16))
    assert len({estimate.n_groups for estimate in estimates}) > 1
    assert min(estimate.n_groups for estimate in estimates) >= 16
    assert_between(estimates, TRUTH, 0.93, 1.0, sure)


def test_points_taken_for_independent_ones_fail():
    class PointByPoint:
        """An interval from var / sqrt(n) over all inputs under all models."""

        def __init__(self, estimate):
            self.mean, self.half = estimate.gradient, 1.96 * np.sqrt(estimate.variance.value / N)

        def interval(self, level):
            return self.mean - self.half, self.mean + self.half

    design = {"sampler": mk.Independent(), "inputs_per_model": 16}
    honest = list(runs(mk.Independent(), mk.Evaluations(N), 200, second_moments=True, **design))
    assert_between(honest, TRUTH, 0.94, 0.96)
    with pytest.raises(AssertionError, match="coverage"):
        assert_between(map(PointByPoint, honest), TRUTH, 0.94, 0.96)


def test_the_standard_error_is_the_spread_over_seeds():
    estimates = list(runs(mk.Independent(), mk.Evaluations(N), 300))
    spread = np.var([e.gradient for e in estimates], axis=0, ddof=1)
    said = np.mean([e.standard_error**2 for e in estimates], axis=0)
    # Chi-square with 299 degrees of freedom: 4.5 sigma of the ratio of variances.
    assert np.abs(spread / said - 1).max() < 4.5 * np.sqrt(2 / 299)
