"""Mean squares and variances of the gradients over the points, with their error bars."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mollikit as mk
from mollikit.moments import SecondMoments
from mollikit.testing import rounding
from tests.core.closed_forms import KERNELS, SAMPLERS, PlaneWaves, waves
from tests.core.test_determinism import bits
from tests.core.test_views import IMAGE, SPLIT, Image, Split

rng = np.random.default_rng(5)
DIMENSION = 6
X = rng.standard_normal(DIMENSION)
WIDTHS = rng.uniform(0.2, 1.5, DIMENSION)
WAVE = PlaneWaves(rng.uniform(0.3, 0.9, (1, DIMENSION)))
FALSE_ALARM = 1e-4  # of one case, by Bonferroni over its coordinates

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def wave_moments(kernel, weights):
    """E g^2 and Var g of g = L(grad cos(w . x)) for L = weights, by the characteristic function."""
    w = WAVE.frequencies[0]
    phi = [float(kernel.characteristic_function(k * w * WIDTHS).prod()) for k in (1, 2)]
    phase = w @ X
    amplitude = (weights @ w) ** 2
    square = amplitude * (1 - phi[1] * np.cos(2 * phase)) / 2
    return square, square - amplitude * (phi[0] * np.sin(phase)) ** 2


def groups_of_points(seed=0, groups=9, size=4, shape=(5,)):
    """Points that depend on each other inside a group."""
    points = np.random.default_rng(seed).standard_normal((groups, size, *shape)) ** 3 + 2
    return points + points.mean(1, keepdims=True)


def moments_of(points):
    return SecondMoments.of_points(points.mean(1), points)


def jackknife(points):
    """The variance's estimate, and its jackknife error over groups, by leaving each group out in turn."""

    def variance(some):
        means, n = some.mean(1), len(some)
        m2 = np.square(some - some.mean((0, 1))).sum((0, 1))
        se2 = np.square(means - means.mean(0)).sum(0) / (n * (n - 1))
        return m2 / (n * some.shape[1]) + se2

    n = len(points)
    left = np.array([variance(np.delete(points, i, 0)) for i in range(n)])
    return variance(points), np.sqrt((n - 1) / n * np.square(left - left.mean(0)).sum(0))


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("groups", [3, 4, 20])
def test_the_variance_and_its_error_are_m2_over_n_plus_se2_and_the_jackknife(groups, size):
    points = groups_of_points(groups=groups, size=size)
    variance, error = jackknife(points)
    streamed = moments_of(points).variance
    np.testing.assert_allclose(streamed.mean, variance, rtol=1e-12)
    np.testing.assert_allclose(streamed.standard_error, error, rtol=1e-9)


def test_the_mean_square_is_that_of_the_groups():
    points = groups_of_points()
    squares, square = np.square(points).mean(1), moments_of(points).mean_square
    np.testing.assert_allclose(square.mean, squares.mean(0), rtol=1e-13)
    np.testing.assert_allclose(square.standard_error, stats.sem(squares, axis=0), rtol=1e-12)


@given(cuts=st.lists(st.integers(1, 29), max_size=5, unique=True), seed=st.integers(0, 99))
@settings(deadline=None)
def test_blocks_merge_to_the_moments_of_the_whole(cuts, seed):
    points = groups_of_points(seed, groups=30, size=3) * np.geomspace(1e-3, 1e3, 5)
    edges = [0, *sorted(cuts), 30]
    blocks = [moments_of(points[a:b]) for a, b in itertools.pairwise(edges)]
    merged = blocks[0]
    for block in blocks[1:]:
        merged = merged.merged(block)
    whole = moments_of(points)
    for name in SecondMoments.parts():
        # Sums of odd powers cancel; their rounding is that of the absolute values.
        scale = np.abs(getattr(whole, name)) + np.abs(points).max((0, 1)) ** (4 if name == "m4" else 3) * 1e-3
        np.testing.assert_array_less(
            np.abs(getattr(merged, name) - getattr(whole, name)), 1e-10 * scale + 1e-300, err_msg=name
        )
    np.testing.assert_allclose(merged.variance.standard_error, whole.variance.standard_error, rtol=1e-9)


def test_nothing_is_lost_to_cancellation():
    # E[x^2] - E[x]^2 would lose every digit here: the spread is 1e-8 of the mean.
    points = 1e8 + groups_of_points(groups=40)
    variance, error = jackknife(points - 1e8)
    streamed = moments_of(points[:7]).merged(moments_of(points[7:])).variance
    np.testing.assert_allclose(streamed.mean, variance, rtol=1e-5)
    np.testing.assert_allclose(streamed.standard_error, error, rtol=1e-5)


def test_few_groups_tell_no_error_of_a_variance():
    points = groups_of_points(groups=2)
    assert np.isinf(moments_of(points).variance.standard_error).all()
    means = points.mean(1)
    expected = points.var(1).mean(0) + means.var(0, ddof=1)
    np.testing.assert_allclose(moments_of(points).variance.mean, expected)
    assert moments_of(points).variance.relative_error == np.inf


def assert_second_moments_agree(sampler, kernel, oracle=WAVE, n=1 << 15):
    view = np.linspace(-1, 1, DIMENSION)
    estimate = mk.Pathwise(kernel(WIDTHS), sampler, second_moments=True).estimate(
        oracle, X, budget=mk.Evaluations(n), rng=3, views={"view": lambda gradients: gradients @ view}
    )
    for measured, weights in [
        (estimate, np.eye(DIMENSION)),
        (estimate.views["view"], view[None]),
    ]:
        square, variance = np.transpose([wave_moments(kernel(1.0), row) for row in weights])
        for seen, truth in ((measured.mean_square, square), (measured.variance, variance)):
            bound = stats.t.isf(FALSE_ALARM / 2 / truth.size, seen.degrees_of_freedom)
            worst = (np.abs(seen.value - truth) / (bound * seen.standard_error)).max()
            assert worst < 1, f"{worst * bound:.1f} standard errors from the truth"
    return estimate


@every_sampler
@pytest.mark.parametrize("kernel", KERNELS)
def test_second_moments_agree_with_the_closed_form(sampler, kernel):
    assert_second_moments_agree(sampler, kernel)


def test_importance_weights_leave_second_moments_unbiased():
    truth = [wave_moments(mk.Gaussian(1.0), row) for row in np.eye(DIMENSION)]
    law = mk.Importance(mk.Gaussian(WIDTHS), mk.Gaussian(WIDTHS * 1.2))
    estimate = mk.Pathwise(law, mk.Independent(), second_moments=True).estimate(
        WAVE, X, budget=mk.Evaluations(1 << 16), rng=3
    )
    for seen, exact in zip((estimate.mean_square, estimate.variance), np.transpose(truth), strict=True):
        assert (np.abs(seen.value - exact) / seen.standard_error).max() < stats.norm.isf(FALSE_ALARM / 12)


@every_sampler
def test_gradients_off_by_a_factor_fail(sampler):
    class Louder(PlaneWaves):
        def value_and_gradient(self, points):
            value, gradient = super().value_and_gradient(points)
            return value, 1.03 * gradient

    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_second_moments_agree(sampler, mk.Gaussian, Louder(WAVE.frequencies))


@every_sampler
def test_the_error_of_a_variance_is_its_spread_over_seeds(sampler):
    smooth, budget = mk.Pathwise(mk.Gaussian(WIDTHS), sampler, second_moments=True), mk.Evaluations(1024)
    runs = [smooth.estimate(waves(), X, budget=budget, rng=seed) for seed in range(120)]
    for name in ("mean_square", "variance"):
        values = np.array([getattr(run, name).value for run in runs])
        said = np.mean([getattr(run, name).standard_error ** 2 for run in runs], axis=0)
        # A ratio of variances with 119 degrees of freedom above, to 4.5 standard deviations.
        assert np.abs(values.var(axis=0, ddof=1) / said - 1).max() < 4.5 * np.sqrt(2 / 119), name


@pytest.mark.parametrize(("seeds", "sure"), [(300, 4.0), pytest.param(4000, 1.0, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", ["mean_square", "variance"])
def test_intervals_of_second_moments_cover(name, seeds, sure):
    smooth = mk.Pathwise(mk.Gaussian(WIDTHS), second_moments=True)
    truth = np.array([wave_moments(mk.Gaussian(1.0), row)[name == "variance"] for row in np.eye(DIMENSION)])
    shares = []
    for seed in range(seeds):
        estimate = smooth.estimate(WAVE, X, budget=mk.Evaluations(256), rng=seed)
        low, high = getattr(estimate, name).interval(0.95)
        shares.append(((low <= truth) & (truth <= high)).mean())
    error = np.std(shares, ddof=1) / np.sqrt(seeds)
    assert 0.94 - sure * error <= np.mean(shares) <= 0.96 + sure * error


def test_the_gradient_has_the_same_bits_with_and_without():
    views = {"sum": lambda gradients: gradients.sum(1)}

    def run(**options):
        smooth = mk.Pathwise(mk.Gaussian(WIDTHS), block=24, **options)
        return smooth.estimate(waves(), X, budget=mk.Evaluations(200), rng=0, views=views)

    assert bits(run()) == bits(run(second_moments=True))


def every_bit(estimate):
    tally = estimate.tally
    moments = [tally.gradient, *tally.views.values(), *([tally.output] if tally.output else [])]
    return [getattr(m, part).tobytes() for m in moments for part in m.parts()]


@pytest.mark.parametrize(
    ("oracle", "inputs", "view"), [(Image(), IMAGE, mk.ChannelSum(0)), (Split(), SPLIT, mk.Input("text"))]
)
def test_second_moments_are_saved_pickled_and_gone_on_with(tmp_path, oracle, inputs, view):
    smooth = mk.Pathwise(mk.Gaussian(0.5), block=16, second_moments=True)

    def run(n, **options):
        return smooth.estimate(
            oracle, inputs, budget=mk.Evaluations(n), rng=1, views={"view": view}, **options
        )

    first = run(64)
    first.save(tmp_path / "first.npz")
    loaded = mk.Estimate.load(tmp_path / "first.npz")
    for copy in (loaded, pickle.loads(pickle.dumps(first))):
        assert every_bit(copy) == every_bit(first)
    assert every_bit(run(160, resume=loaded)) == every_bit(run(160))
    low, high = loaded.variance.interval()
    value = loaded.variance.value
    for name in inputs if isinstance(inputs, dict) else [...]:
        assert value[name].shape == inputs[name].shape
        assert ((low[name] <= value[name]) & (value[name] <= high[name]) & (low[name] >= 0)).all()
    plain = mk.Pathwise(mk.Gaussian(0.5), block=16)
    with pytest.raises(ValueError, match="second_moments: True then, False now"):
        plain.estimate(oracle, inputs, budget=mk.Evaluations(160), rng=1, views={"view": view}, resume=loaded)


def test_the_values_variance_is_told_too():
    estimate = mk.Pathwise(mk.Gaussian(WIDTHS), mk.Independent(), second_moments=True).estimate(
        WAVE, X, budget=mk.Evaluations(1 << 15), rng=0
    )
    w = WAVE.frequencies[0]
    phi = [float(mk.Gaussian(1.0).characteristic_function(k * w * WIDTHS).prod()) for k in (1, 2)]
    truth = (1 + phi[1] * np.cos(2 * w @ X)) / 2 - (phi[0] * np.cos(w @ X)) ** 2
    seen = estimate.output.variance
    assert abs(seen.value - truth) < 4 * seen.standard_error


@pytest.mark.parametrize("name", ["mean_square", "variance"])
def test_a_budget_may_look_at_a_second_moment(name):
    smooth = mk.Pathwise(mk.Gaussian(WIDTHS), block=8, second_moments=True)
    estimate = smooth.estimate(waves(), X, budget=mk.RelativeError(0.2, view=name), rng=0)
    assert getattr(estimate, name).relative_error <= 0.2
    assert estimate.n_groups in [16 << k for k in range(12)]
    with pytest.raises(ValueError, match=f"there is no view '{name}'"):
        mk.Pathwise(mk.Gaussian(WIDTHS)).estimate(waves(), X, budget=mk.RelativeError(0.2, view=name))
    with pytest.raises(ValueError, match=f"a view cannot be called '{name}'"):
        smooth.estimate(waves(), X, views={name: lambda gradients: gradients})


def test_second_moments_that_were_not_asked_for_are_missed_by_name():
    estimate = mk.Pathwise(mk.Gaussian(WIDTHS)).estimate(waves(), X, budget=mk.Evaluations(64))
    for told in (estimate, estimate.output):
        with pytest.raises(AttributeError, match="second_moments=True"):
            _ = told.variance
        with pytest.raises(AttributeError, match="second_moments=True"):
            _ = told.mean_square


def test_a_linear_function_has_no_variance():
    class Plane:
        def value_and_gradient(self, points):
            return points.sum(1), np.ones_like(points)

    estimate = mk.Pathwise(mk.Gaussian(WIDTHS), second_moments=True).estimate(
        Plane(), X, budget=mk.Evaluations(64), rng=0
    )
    assert np.abs(estimate.variance.value).max() <= rounding(float)
    low, high = estimate.variance.interval()
    assert (low == high).all()
    np.testing.assert_allclose(estimate.mean_square.value, 1)
