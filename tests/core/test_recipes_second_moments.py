"""Recipes against their papers' formulas, on models whose moments are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import erfinv

import mollikit as mk
from tests.core.closed_forms import Cubic

X = np.array([-1.0, 0.2, 0.9, 2.0])
NOISE = 0.2
BUDGET = mk.Evaluations(1 << 15)


def worst(measured, truth):
    """In standard errors."""
    low = np.abs(measured.value - truth) / measured.standard_error
    return low.max() / stats.t.isf(1e-4 / 2 / truth.size, measured.degrees_of_freedom)


def test_smoothgrad_squared_is_the_mean_of_squared_gradients():
    # (3 (x + s z)^2)^2 = 9 E (x + s z)^4.
    s = NOISE * np.ptp(X)
    truth = 9 * (X**4 + 6 * X**2 * s**2 + 3 * s**4)
    estimate = mk.recipes.smoothgrad_squared(Cubic(), X, noise=NOISE, budget=BUDGET, rng=0)
    assert worst(estimate.mean_square, truth) < 1
    assert worst(estimate.variance, truth) > 1
    wrong = mk.recipes.smoothgrad_squared(Cubic(), X, noise=1.03 * NOISE, budget=BUDGET, rng=0)
    assert worst(wrong.mean_square, truth) > 1


def test_vargrad_is_the_variance_of_gradients():
    # Var 3 (x + s z)^2 = 9 (4 x^2 s^2 + 2 s^4).
    s = NOISE * np.ptp(X)
    truth = 9 * (4 * X**2 * s**2 + 2 * s**4)
    estimate = mk.recipes.vargrad(Cubic(), X, noise=NOISE, budget=BUDGET, rng=0)
    assert worst(estimate.variance, truth) < 1
    wrong = mk.recipes.vargrad(Cubic(), X, noise=1.03 * NOISE, budget=BUDGET, rng=0)
    assert worst(wrong.variance, truth) > 1


def test_vargrad_has_no_bias_at_few_points():
    # The programs' E[g^2] - E[g]^2 over n = 16 would be a sixteenth too small.
    s = NOISE * np.ptp(X)
    truth = 9 * (4 * X**2 * s**2 + 2 * s**4)
    smooth = mk.Pathwise(mk.Gaussian(mk.OfRange(NOISE)), mk.Independent(), second_moments=True)
    runs = [smooth.estimate(Cubic(), X, budget=mk.Evaluations(16), rng=seed) for seed in range(3000)]
    values = np.array([run.variance.value for run in runs])
    z = (values.mean(0) - truth) / stats.sem(values)
    assert np.abs(z).max() < 4.5
    assert ((15 / 16 * values.mean(0) - truth) / stats.sem(values)).min() < -4.5


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_adaptgrad_takes_the_papers_widths(confidence):
    low, high = -1.5, 2.0
    sigma = np.minimum(X - low, high - X) / (np.sqrt(2) * erfinv(confidence))
    estimate = mk.recipes.adaptgrad(
        Cubic(), X, low=low, high=high, confidence=confidence, budget=BUDGET, rng=0
    )
    truth = 3 * (X**2 + sigma**2)
    moving = sigma > 0
    errors = np.abs(estimate.gradient - truth)[moving] / estimate.standard_error[moving]
    assert errors.max() < stats.norm.isf(1e-5)
    assert estimate.gradient[3] == truth[3] == 12
    assert "WithinBounds" in estimate.provenance["kernels"]


def test_options_go_to_the_estimator():
    for recipe, options in (
        (mk.recipes.smoothgrad_squared, {}),
        (mk.recipes.vargrad, {}),
        (mk.recipes.adaptgrad, {"low": -2, "high": 3}),
    ):
        estimate = recipe(
            Cubic(), X, budget=mk.Evaluations(64), rng=4, views={"sum": lambda g: g.sum(1)}, **options
        )
        assert (estimate.n_evaluations, estimate.provenance["seed"]) == (64, 4)
        assert set(estimate.views) == {"sum"}
