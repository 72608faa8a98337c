"""What an estimate foretells of a wanted error comes true."""

from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk
from tests.core.closed_forms import waves
from tests.core.test_coverage import FORM, KERNEL, TRUTH, X

SMOOTH = mk.Pathwise(KERNEL, block=64)
SUM = {"sum": lambda gradients: gradients.sum(1)}


@pytest.fixture(scope="module")
def long():
    return SMOOTH.estimate(FORM, X, budget=mk.Evaluations(1 << 17), rng=10**6, views=SUM)


def needed(long, budget):
    """Evaluations that the budget's law takes, from a long run's spread and the truth."""
    moments = long.tally.named(budget.view)
    per_group = moments.standard_error**2 * moments.n
    if isinstance(budget, mk.RelativeError):
        truth = TRUTH if budget.view is None else TRUTH.sum()
        return 8 * per_group.sum() / np.square(truth).sum() / budget.r**2
    return 8 * per_group.max() * 1.96**2 / budget.e**2


BUDGETS = [
    mk.RelativeError(0.02),
    mk.RelativeError(0.3),
    mk.RelativeError(0.05, view="sum"),
    mk.AbsoluteError(0.05),
    mk.AbsoluteError(0.1, view="sum"),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_forecast_covers_what_is_needed(long, budget):
    truth, inside, ratios = needed(long, budget), [], []
    for seed in range(200):
        estimate = SMOOTH.estimate(FORM, X, budget=mk.Evaluations(256), rng=seed, views=SUM)
        forecast = estimate.forecast(budget)
        inside.append(forecast.low <= truth * 1.02 and truth * 0.98 <= forecast.high)
        ratios.append(forecast.evaluations / truth)
    # At least 95%, less four standard errors of 200 seeds.
    assert np.mean(inside) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)
    assert 0.6 < np.median(ratios) < 1.6


def test_a_run_with_the_budget_stops_about_there():
    budget = mk.RelativeError(0.02)
    forecast = SMOOTH.estimate(FORM, X, budget=mk.Evaluations(1024), rng=0).forecast(budget)
    stopped = [SMOOTH.estimate(FORM, X, budget=budget, rng=seed).n_evaluations for seed in range(20)]
    assert forecast.stop in (np.median(stopped) / 2, np.median(stopped), 2 * np.median(stopped))
    assert forecast.evaluations <= forecast.stop < max(256, 4 * forecast.evaluations)


def test_seconds_are_those_of_the_estimates_own_rate():
    estimate = SMOOTH.estimate(FORM, X, budget=mk.Evaluations(512), rng=0)
    forecast = estimate.forecast(mk.RelativeError(estimate.relative_error / 3))
    assert forecast.evaluations == pytest.approx(9 * 512)
    assert forecast.seconds == pytest.approx(9 * estimate.seconds)
    assert "evaluations (" in str(forecast)


def test_where_nothing_is_resolved_nothing_is_foretold():
    x = np.full(6, 1e-12)
    estimate = mk.Pathwise(mk.Gaussian(3.0), mk.Independent()).estimate(
        waves(), x, budget=mk.Evaluations(16), rng=3
    )
    assert estimate.relative_error == np.inf
    forecast = estimate.forecast(mk.RelativeError(0.1))
    assert forecast.evaluations == forecast.high == forecast.seconds == np.inf
    assert "nothing is resolved" in str(forecast)


def test_second_moments_strata_and_loaded_estimates_foretell_too(tmp_path):
    both = mk.Pathwise(KERNEL, second_moments=True).estimate(FORM, X, budget=mk.Evaluations(512), rng=0)
    ratio = both.forecast(mk.RelativeError(both.variance.relative_error / 2, view="variance"))
    assert ratio.evaluations == pytest.approx(4 * 512)
    strata = mk.Subspace(KERNEL).estimate(FORM, X, budget=mk.Evaluations(512), rng=0)
    strata.save(tmp_path / "strata.npz")
    loaded = mk.Estimate.load(tmp_path / "strata.npz")
    assert loaded.forecast(mk.RelativeError(0.01)) == strata.forecast(mk.RelativeError(0.01))


def test_only_errors_of_known_views_are_foretold():
    estimate = SMOOTH.estimate(FORM, X, budget=mk.Evaluations(64), rng=0)
    with pytest.raises(TypeError, match="is no error to be foretold"):
        estimate.forecast(mk.Evaluations(64))
    with pytest.raises(ValueError, match="there is no view 'no'"):
        estimate.forecast(mk.RelativeError(0.1, view="no"))
