"""Stopping by an absolute error and by a ranking that stands still; coverage after sequential stopping."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.budgets import Status
from mollikit.moments import Moments
from tests.core.closed_forms import Cubic, waves
from tests.core.test_coverage import FORM, KERNEL, TRUTH, X, assert_between
from tests.core.test_determinism import bits

SIX = np.linspace(-1, 1, 6)
SUM = {"sum": lambda gradients: gradients.sum(1)}


def status(n, previous, moments):
    return Status(n, previous, 8 * n, 1.0, n, lambda view: moments)


def test_the_absolute_error_is_the_widest_half_interval():
    moments = Moments.of(np.random.default_rng(0).standard_normal((16, 5)))
    low, high = stats.t.interval(0.9, 15, moments.mean, moments.standard_error)
    widest = ((high - low) / 2).max()
    assert mk.AbsoluteError(widest * 1.0001, level=0.9).reached(status(16, 15, moments))
    assert mk.AbsoluteError(widest * 0.9999, level=0.9).reached(status(16, 15, moments)) is None
    assert mk.AbsoluteError(widest * 1.0001, level=0.9).reached(status(17, 16, moments)) is None
    assert mk.AbsoluteError(widest / 2, level=0.9).share(status(16, 15, moments)) == pytest.approx(0.25)
    assert mk.AbsoluteError(1.0).share(status(1, 0, Moments.of(np.ones((1, 5))))) == 0


@pytest.mark.parametrize("view", [None, "sum"])
def test_a_run_stops_at_the_first_look_whose_intervals_are_narrow_enough(view):
    smooth, errors = mk.Pathwise(mk.Gaussian(0.5), mk.Independent(), block=1), []
    asked = mk.AbsoluteError(0.12, view=view)
    estimate = smooth.estimate(waves(), SIX, views=SUM, budget=asked, rng=0)
    for groups in (estimate.n_groups // 2, estimate.n_groups):
        at = smooth.estimate(waves(), SIX, views=SUM, budget=mk.Evaluations(groups), rng=0)
        low, high = at.interval() if view is None else at.views[view].interval()
        errors.append((high - low).max() / 2)
    assert errors[1] <= 0.12 < errors[0]
    assert estimate.stopped == str(asked)
    assert not estimate.partial


def test_the_error_is_in_the_gradients_own_units():
    class Louder:
        def value_and_gradient(self, points):
            value, gradient = waves().value_and_gradient(points)
            return value, 1000 * gradient

    run = partial(mk.Pathwise(mk.Gaussian(0.5), block=8).estimate, inputs=SIX, rng=0)
    quiet = run(waves(), budget=mk.AbsoluteError(0.02))
    assert run(Louder(), budget=mk.AbsoluteError(20.0)).n_groups == quiet.n_groups
    assert run(Louder(), budget=mk.AbsoluteError(0.02) | mk.Evaluations(800)).n_evaluations == 800


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mk.AbsoluteError(0.0), "positive"),
        (lambda: mk.AbsoluteError(float("nan")), "positive"),
        (lambda: mk.AbsoluteError(1.0, level=95), "between 0 and 1"),
        (lambda: mk.StableRanking(0), "at least 1"),
        (lambda: mk.StableRanking(3, looks=0), "at least 1"),
        (lambda: mk.StableRanking(3, overlap=1.5), r"\(0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("budget", [mk.AbsoluteError(1.0, view="no"), mk.StableRanking(3, view="no")])
def test_an_unknown_view_is_refused_before_the_model_is_called(budget):
    with pytest.raises(ValueError, match=r"there is no view 'no'; the views are \['sum'\]"):
        mk.Pathwise(mk.Gaussian(0.5)).estimate(object(), SIX, views=SUM, budget=budget | mk.Seconds(1))


def looks(budget, maps):
    """At which look the budget is reached, for the maps seen at 16, 32, 64 ... groups."""
    watch, previous = budget.begun(), 0
    for k, values in enumerate(maps):
        n = 16 << k
        zeros = np.zeros(len(values))
        if watch.reached(status(n, previous, Moments(n, np.asarray(values, float), zeros))) is not None:
            return k
        assert watch.reached(status(n + 1, n, Moments(n, zeros, zeros))) is None  # no look is due
        previous = n + 1
    return None


def test_a_ranking_that_stands_still_over_doublings_stops():
    still = [[9, -8, 1, 2], [-8, 9, 2, 1], [7, 9, 3, 0], [9, 9, 0, 1]]  # the same two, by absolute value
    assert looks(mk.StableRanking(2), still) == 2
    assert looks(mk.StableRanking(2, looks=1), still) == 1
    assert looks(mk.StableRanking(3), still) is None
    turning = [[9, 8, 1, 2], [9, 1, 8, 2], [9, 1, 8, 2], [9, 8, 1, 2]]
    assert looks(mk.StableRanking(2), turning) is None
    assert looks(mk.StableRanking(2, overlap=0.5), turning) == 2
    assert looks(mk.StableRanking(2, looks=1), turning) == 2


def test_the_same_budget_serves_many_runs():
    budget = mk.StableRanking(3)
    smooth = mk.Pathwise(mk.Gaussian(0.5), block=8)
    first, again = (smooth.estimate(waves(), SIX, budget=budget, rng=0) for _ in range(2))
    assert bits(first) == bits(again)
    assert first.stopped == "StableRanking(k=3, overlap=1.0, looks=2, view=None)"
    with ThreadPoolExecutor(2) as executor:
        assert bits(smooth.estimate(waves(), SIX, budget=budget, rng=0, executor=executor)) == bits(first)
    rows = smooth.estimate_batch(waves(), np.stack([SIX, SIX]), budget=budget | mk.Evaluations(10**5), rng=0)
    assert bits(rows[0]) == bits(first)
    assert rows[1].n_groups >= 64


def test_what_a_ranking_stopped_on_is_what_longer_runs_rank():
    x = np.array([0.0, 0.1, 0.2, 2.0, 2.5])
    smooth = mk.Pathwise(mk.Gaussian(0.3), block=8)
    estimate = smooth.estimate(Cubic(), x, budget=mk.StableRanking(2), rng=0)
    assert estimate.n_groups == 64
    assert set(np.argsort(estimate.gradient)[-2:]) == {3, 4}


def test_there_must_be_more_coordinates_than_are_ranked():
    with pytest.raises(ValueError, match="there are 6 coordinates to rank"):
        mk.Pathwise(mk.Gaussian(0.5)).estimate(waves(), SIX, budget=mk.StableRanking(6))


# Budgets that are reached at several looks, which blocks of 8 groups all hit, on named models: waves in 8
# dimensions, and a cubic, whose gradients are skewed.
CUBIC, CUBE_WIDTH = np.linspace(0.2, 1.0, 8), 0.5
CUBE_TRUTH = 3 * (CUBIC**2 + CUBE_WIDTH**2)
SEQUENTIAL = {
    "waves, absolute": (mk.Pathwise(KERNEL, block=64), FORM, X, TRUTH, mk.AbsoluteError(0.2)),
    "waves, absolute, antithetic": (
        mk.Pathwise(KERNEL, mk.Antithetic(), block=16),
        FORM,
        X,
        TRUTH,
        mk.AbsoluteError(0.44),
    ),
    "waves, absolute, Sobol": (
        mk.Pathwise(KERNEL, mk.Sobol(), block=512),
        FORM,
        X,
        TRUTH,
        mk.AbsoluteError(0.054),
    ),
    "cubic, absolute": (
        mk.Pathwise(mk.Gaussian(CUBE_WIDTH), block=64),
        Cubic(),
        CUBIC,
        CUBE_TRUTH,
        mk.AbsoluteError(0.18),
    ),
    "cubic, relative": (
        mk.Pathwise(mk.Gaussian(CUBE_WIDTH), block=64),
        Cubic(),
        CUBIC,
        CUBE_TRUTH,
        mk.RelativeError(0.032),
    ),
}


@pytest.mark.parametrize(("seeds", "sure"), [(150, 4.0), pytest.param(5000, 1.0, marks=pytest.mark.full)])
@pytest.mark.parametrize("case", SEQUENTIAL.values(), ids=SEQUENTIAL)
def test_coverage_after_sequential_stopping(case, seeds, sure):
    smooth, form, x, truth, budget = case
    estimates = [smooth.estimate(form, x, budget=budget, rng=seed) for seed in range(seeds)]
    assert len({estimate.n_groups for estimate in estimates}) > 1
    assert_between(estimates, truth, 0.93, 1.0, sure)


@pytest.mark.parametrize(("seeds", "sure"), [(150, 4.0), pytest.param(5000, 1.0, marks=pytest.mark.full)])
def test_coverage_of_a_view_after_stopping_on_it(seeds, sure):
    smooth, budget = mk.Pathwise(KERNEL, block=64), mk.AbsoluteError(0.55, view="sum")
    estimates = [smooth.estimate(FORM, X, views=SUM, budget=budget, rng=seed) for seed in range(seeds)]
    assert len({estimate.n_groups for estimate in estimates}) > 1
    assert_between([estimate.views["sum"] for estimate in estimates], TRUTH.sum(), 0.93, 1.0, sure)


def test_looking_at_every_group_from_the_second_on_would_cost_coverage(monkeypatch):
    monkeypatch.setattr(Status, "looked_at", property(lambda self: self.n_groups >= 2))
    smooth, budget = mk.Pathwise(KERNEL, block=8), mk.AbsoluteError(0.6, view="sum")
    estimates = [smooth.estimate(FORM, X, views=SUM, budget=budget, rng=seed) for seed in range(300)]
    with pytest.raises(AssertionError, match="coverage"):
        assert_between([estimate.views["sum"] for estimate in estimates], TRUTH.sum(), 0.93, 1.0, sure=2)
