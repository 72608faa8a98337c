"""Two levels: unbiased, with error bars that cover, and cheaper where the models agree."""

import numpy as np
import pytest

import mollikit as mk

SCALE = 0.5
X = np.linspace(-1, 1, 20)
# E[sin(w (x + s z))] = sin(w x) exp(-(w s)^2 / 2)
TRUTH = np.sin(3 * X) * np.exp(-((3 * SCALE) ** 2) / 2) + 0.3 * np.sin(7 * X) * np.exp(
    -((7 * SCALE) ** 2) / 2
)
COARSE_TRUTH = np.sin(3 * X) * np.exp(-((3 * SCALE) ** 2) / 2)
PATHWISE = mk.Pathwise(mk.Gaussian(SCALE), mk.Independent())


class Counted:
    def __init__(self) -> None:
        self.rows = 0


class Fine(Counted):
    def value_and_gradient(self, points):
        self.rows += len(points)
        return None, np.sin(3 * points) + 0.3 * np.sin(7 * points)


class Coarse(Counted):
    def value_and_gradient(self, points):
        self.rows += len(points)
        return None, np.sin(3 * points)


def runs(two: mk.TwoLevel, seeds: int, n: int = 200) -> list[mk.TwoLevelEstimate]:
    return [two.estimate(Fine(), X, budget=mk.Evaluations(n), rng=(1, seed)) for seed in range(seeds)]


@pytest.mark.parametrize("known", [False, True])
def test_it_is_unbiased_and_its_intervals_cover(known):
    two = mk.TwoLevel(PATHWISE, Coarse(), price=0.1, mean=COARSE_TRUTH if known else None)
    found = runs(two, 200, 100)
    low, high = np.array([estimate.interval(0.95) for estimate in found]).transpose(1, 0, 2)
    covered = (low <= TRUTH) & (high >= TRUTH)
    # 4000 intervals: a standard error of 0.35%, were they independent.
    assert 0.93 < covered.mean() < 0.97
    mean = np.mean([estimate.gradient for estimate in found], axis=0)
    error = np.std([estimate.gradient for estimate in found], axis=0) / np.sqrt(200)
    assert (
        np.square((mean - TRUTH) / error).mean() < 2.3
    )  # of 20 coordinates: 4 standard errors of chi^2 / 20


def test_error_bars_of_one_level_alone_do_not_cover():
    # The negative control: the coarse level's own error bars, for which the difference is exact.
    found = runs(mk.TwoLevel(PATHWISE, Coarse(), price=0.1), 40, 100)
    half = np.array([1.96 * estimate.coarse.standard_error for estimate in found])
    gradients = np.array([estimate.gradient for estimate in found])
    assert (np.abs(gradients - TRUTH) <= half).mean() < 0.9


def test_it_is_worth_what_the_formula_says():
    points = X + SCALE * np.random.default_rng(0).standard_normal((50000, 20))
    fine, coarse = Fine().value_and_gradient(points)[1], Coarse().value_and_gradient(points)[1]
    variances = [part.var(axis=0).sum() for part in (fine, coarse, fine - coarse)]
    foretold = (np.sqrt(variances[2] * 1.1) + np.sqrt(variances[1] * 0.1)) ** 2 / variances[0]
    n = 600
    found = runs(mk.TwoLevel(PATHWISE, Coarse(), price=0.1), 60, n)
    real = np.mean([np.square(estimate.gradient - TRUTH).sum() for estimate in found])
    assert real * n / variances[0] == pytest.approx(foretold, rel=0.25)
    assert foretold < 0.7


def test_equal_models_leave_no_difference():
    estimate = mk.TwoLevel(PATHWISE, Fine(), price=0.5).estimate(Fine(), X, budget=mk.Evaluations(100), rng=0)
    assert not estimate.difference.gradient.any()
    assert estimate.difference.n_evaluations == 8 + 4
    np.testing.assert_allclose(estimate.standard_error, estimate.coarse.standard_error)


def test_the_budget_holds_and_the_same_seed_gives_the_same_bits():
    two = mk.TwoLevel(PATHWISE, Coarse(), price=0.25)
    first, again = (two.estimate(Fine(), X, budget=mk.Evaluations(123), rng=4) for _ in range(2))
    np.testing.assert_array_equal(first.gradient, again.gradient)
    assert first.n_evaluations == 1.25 * first.difference.n_evaluations + 0.25 * first.coarse.n_evaluations
    assert 110 < first.n_evaluations <= 123
    assert "2 levels" in repr(first)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="price"):
        mk.TwoLevel(PATHWISE, Coarse(), price=-1)
    two, fine = mk.TwoLevel(PATHWISE, Coarse(), price=0.1), Fine()
    with pytest.raises(ValueError, match=r"give at least Evaluations\(15\)"):
        two.estimate(fine, X, budget=mk.Evaluations(14))
    with pytest.raises(TypeError, match="Evaluations"):
        two.estimate(fine, X, budget=mk.Seconds(1))
    assert fine.rows == 0
    with pytest.raises(ValueError, match="level="):
        two.estimate(fine, X, budget=mk.Evaluations(20), rng=0).interval(95)


@pytest.mark.parametrize("mean", [np.zeros((4, 3)), np.zeros(5), 0.0, {"a": np.zeros((3, 4))}])
def test_a_mean_of_another_form_is_refused_before_a_gradient(mean):
    class Never:
        def value_and_gradient(self, x):
            raise AssertionError("a model was called")

    two = mk.TwoLevel(PATHWISE, Never(), price=0.1, mean=mean)
    with pytest.raises(ValueError, match=r"mean has the shapes .* the input .*\(3, 4\)"):
        two.estimate(Never(), np.ones((3, 4)), budget=mk.Evaluations(256), rng=0)


def test_what_the_pilot_saw_does_not_move_the_mean():
    """Of 2000 runs on a lognormal gradient; pooled by the numbers of points, the same strata are off."""

    class Skewed:
        def __init__(self, factor):
            self.factor = factor

        def value_and_gradient(self, points):
            return None, self.factor * np.exp(1.5 * points)

    two = mk.TwoLevel(mk.Pathwise(mk.Gaussian(1.0), mk.Independent()), Skewed(0.5), price=0.25)
    found = [
        two.estimate(Skewed(1), np.zeros(1), budget=mk.Evaluations(64), rng=(1, seed)) for seed in range(2000)
    ]

    def deviation(means):
        return (np.mean(means) - np.exp(1.5**2 / 2)) / (np.std(means) / np.sqrt(len(means)))

    # A false alarm in 16,000.
    assert abs(deviation([estimate.gradient for estimate in found])) < 4

    def pooled(level):
        counts = [stratum.n_evaluations for stratum in level.strata]
        return np.average([stratum.gradient[0] for stratum in level.strata], weights=counts)

    assert deviation([pooled(estimate.coarse) + pooled(estimate.difference) for estimate in found]) < -4
