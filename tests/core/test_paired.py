"""Differences on common random numbers, with the error bar of the difference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from tests.core.closed_forms import Cubic, PlaneWaves, Recording, waves
from tests.core.test_coverage import assert_between
from tests.core.test_determinism import bits

X = np.linspace(-1, 1, 6)
FORM = waves()
SUM = {"sum": lambda gradients: gradients.sum(1)}


def side(kernel=None, sampler=None, oracle=FORM, x=X, **options):
    return mk.Side(mk.Pathwise(kernel or mk.Gaussian(0.5), sampler or mk.Recentred(8), **options), oracle, x)


def smoothed(kernel, x=X, width=0.5, form=FORM):
    return form.smoothed_gradient(kernel(1.0), x, np.full(6, width))


def shifted(form, by):
    return PlaneWaves(form.frequencies + by)


OTHER = shifted(FORM, 0.02)
# Pairs with what they truly differ by: two widths, kernels, models, inputs, samplers.
PAIRS = {
    "widths": (side(), side(mk.Gaussian(0.55)), smoothed(mk.Gaussian) - smoothed(mk.Gaussian, width=0.55)),
    "kernels": (side(), side(mk.Uniform(0.5)), smoothed(mk.Gaussian) - smoothed(mk.Uniform)),
    "models": (side(), side(oracle=OTHER), smoothed(mk.Gaussian) - smoothed(mk.Gaussian, form=OTHER)),
    "inputs": (side(), side(x=X + 0.05), smoothed(mk.Gaussian) - smoothed(mk.Gaussian, X + 0.05)),
    "samplers": (side(sampler=mk.LatinHypercube(8)), side(), np.zeros(6)),
}
every_pair = pytest.mark.parametrize(("first", "second", "truth"), PAIRS.values(), ids=PAIRS)


@every_pair
def test_the_difference_agrees_with_the_closed_form(first, second, truth):
    apart = mk.difference(first, second, budget=mk.Evaluations(1 << 14), rng=0, views=SUM)
    bound = stats.t.isf(1e-4 / 12, apart.degrees_of_freedom)
    assert (np.abs(apart.gradient - truth) / apart.standard_error).max() < bound
    view = apart.views["sum"]
    assert abs(view.value - truth.sum()) < bound * view.standard_error
    wrong = np.abs(apart.gradient - truth - 0.05) / apart.standard_error
    assert wrong.max() > bound
    np.testing.assert_allclose(apart.gradient, apart.first.gradient - apart.second.gradient, atol=1e-13)
    np.testing.assert_allclose(apart.output.value, apart.first.output.value - apart.second.output.value)


@pytest.mark.parametrize("name", ["widths", "kernels", "models", "inputs"])
def test_common_random_numbers_save_what_they_say(name):
    first, second, _ = PAIRS[name]
    runs = [mk.difference(first, second, budget=mk.Evaluations(256), rng=seed) for seed in range(200)]
    spread = np.var([run.gradient for run in runs], axis=0, ddof=1).sum()
    apart = [
        np.var([getattr(run, which).gradient for run in runs], axis=0, ddof=1).sum()
        for which in ("first", "second")
    ]
    said = np.mean([np.square(run.standard_error).sum() for run in runs])
    assert spread == pytest.approx(said, rel=4.5 * np.sqrt(2 / 199))
    factors = np.median([run.variance_factor for run in runs])
    assert sum(apart) / spread == pytest.approx(factors, rel=0.35)
    assert factors > (1.5 if name == "kernels" else 4)  # of different widths
    assert np.median([run.correlation for run in runs]) > (0.3 if name == "kernels" else 0.7)


@pytest.mark.parametrize(("seeds", "sure"), [(200, 4.0), pytest.param(4000, 1.0, marks=pytest.mark.full)])
def test_intervals_of_differences_cover(seeds, sure):
    first, second, truth = PAIRS["widths"]
    runs = [mk.difference(first, second, budget=mk.Evaluations(512), rng=seed) for seed in range(seeds)]
    assert_between(runs, truth, 0.94, 0.96, sure)


def test_what_is_compared_with_itself_differs_by_nothing():
    apart = mk.difference(side(), side(), budget=mk.Evaluations(512), rng=0)
    assert not apart.gradient.any()
    assert apart.correlation == pytest.approx(1)
    assert apart.variance_factor == np.inf


def test_each_side_has_the_bits_of_an_estimate_of_its_own():
    first, second, _ = PAIRS["models"]
    apart = mk.difference(first, second, budget=mk.Evaluations(512), rng=(3, 1), block=32, views=SUM)
    for which, own in ((apart.first, first), (apart.second, second)):
        alone = mk.Pathwise(mk.Gaussian(0.5), block=32).estimate(
            own.oracle, X, budget=mk.Evaluations(256), rng=(3, 1), views=SUM
        )
        assert bits(which) == bits(alone)
        assert repr(which).startswith("Estimate((6,), error ")
    assert repr(apart).startswith("Difference((6,), error ")


def test_inputs_of_different_precision_get_the_same_numbers():
    class Single:
        def value_and_gradient(self, points):
            assert points.dtype == np.float32
            return FORM.value_and_gradient(points)

    single = mk.Side(mk.Pathwise(mk.Gaussian(0.5)), Single(), X.astype(np.float32))
    apart = mk.difference(side(), single, budget=mk.Evaluations(256), rng=0)
    assert apart.variance_factor > 1e6


def test_both_sides_evaluations_count():
    first, second = Recording(FORM), Recording(FORM)
    apart = mk.difference(side(oracle=first), side(oracle=second), budget=mk.Evaluations(300), rng=0)
    rows = sum(int((p != X).any(1).sum()) for oracle in (first, second) for p, _ in oracle.batches)
    assert rows == apart.n_evaluations == 2 * apart.first.n_evaluations == 288


def test_budgets_look_at_the_difference():
    first, second, _ = PAIRS["widths"]
    apart = mk.difference(first, second, budget=mk.RelativeError(0.3), rng=0, block=8)
    assert apart.relative_error <= 0.3
    assert apart.n_groups in [16 << k for k in range(12)]


def test_bits_do_not_depend_on_the_executor():
    first, second, _ = PAIRS["kernels"]
    options = {"budget": mk.Evaluations(1024), "rng": 0, "block": 16}
    with ThreadPoolExecutor(3) as executor:
        pooled = mk.difference(first, second, executor=executor, **options)
    assert bits(pooled) == bits(mk.difference(first, second, **options))


def test_an_interruption_keeps_the_difference():
    class Interrupting:
        calls = 0

        def value_and_gradient(self, points):
            Interrupting.calls += 1
            if Interrupting.calls > 5:
                raise KeyboardInterrupt
            return FORM.value_and_gradient(points)

    with pytest.raises(mk.Interrupted) as raised:
        mk.difference(side(oracle=Interrupting()), side(), budget=mk.Evaluations(10_000), block=16)
    assert isinstance(raised.value.partial, mk.Difference)
    assert raised.value.partial.first.n_evaluations == 80


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        (side(sampler=mk.Recentred(4)), ValueError, "8 points and Recentred"),
        (side(oracle=Cubic(), x=np.ones(5)), ValueError, "differ in form"),
        (mk.Side(mk.Secant(mk.Gaussian(0.5)), FORM, X), TypeError, r"no Side\(Pathwise"),
        (mk.Pathwise(mk.Gaussian(0.5)), TypeError, r"no Side\(Pathwise"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(second, error, message):
    oracle = Recording(FORM)
    with pytest.raises(error, match=message):
        mk.difference(side(oracle=oracle), second, budget=mk.Evaluations(64))
    assert oracle.batches == []


def test_a_budget_for_fewer_than_two_pairs_of_groups_is_refused():
    with pytest.raises(ValueError, match="groups of 16 points"):
        mk.difference(side(), side(), budget=mk.Evaluations(31))
