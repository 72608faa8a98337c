from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

import mollikit as mk
from mollikit.estimators.score_function import ScoreFunctionTask
from mollikit.moments import Moments
from tests.core.black_boxes import ALL_KERNELS, WITHOUT_SCORE, Counting, Values, coverage, is_unbiased
from tests.core.closed_forms import SAMPLERS, Linear, Quadratic, waves

X = np.linspace(-1, 1, 6)
WIDTHS = np.array([0.2, 0.5, 0.8, 0.3, 0.6, 0.4])
WITH_SCORE = [kernel for kernel in ALL_KERNELS if kernel not in WITHOUT_SCORE]
WAVES = waves()


def run(smooth, oracle=None, x=X, n=1 << 15, rng=0, **options):
    return smooth.estimate(oracle or Values(WAVES), x, budget=mk.Evaluations(n), rng=rng, **options)


@pytest.mark.parametrize("kernel", WITH_SCORE)
def test_waves_are_unbiased_under_every_kernel_with_a_score(kernel):
    estimate = run(mk.ScoreFunction(kernel(WIDTHS)))
    assert is_unbiased(estimate, WAVES.smoothed_gradient(kernel(WIDTHS), X, WIDTHS))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Laplace])
def test_waves_are_unbiased_under_every_sampler(kernel, sampler):
    # With ties inside a sampler's group the baseline must come from other groups.
    estimate = run(mk.ScoreFunction(kernel(WIDTHS), sampler, baseline=4))
    assert is_unbiased(estimate, WAVES.smoothed_gradient(kernel(WIDTHS), X, WIDTHS))


@pytest.mark.parametrize("seed", range(3))
def test_quadratics_are_unbiased(seed):
    a = np.random.default_rng(seed).standard_normal((6, 6))
    form = Quadratic(a + a.T)
    assert is_unbiased(run(mk.ScoreFunction(mk.Gaussian(WIDTHS)), Values(form), rng=seed), form.matrix @ X)


def test_a_jump_is_seen():
    class Step:
        def value(self, points):
            return (points > 0.3).sum(-1).astype(float)

    x = np.array([0.0, 0.3, 1.0])
    truth = mk.Gaussian(1).density((x - 0.3) / 0.5) / 0.5
    assert is_unbiased(run(mk.ScoreFunction(mk.Gaussian(0.5)), Step(), x), truth)


def test_several_inputs_each_with_its_kernel():
    class Sum:
        def value(self, points):
            return np.sin(points["a"]).sum(1) + (points["b"] ** 2).sum((1, 2))

    inputs = {"a": np.array([0.3, 2.0]), "b": np.array([[1.0], [-2.0], [0.5]])}
    kernels = {"a": mk.Laplace(0.5), "b": mk.Gaussian(0.2)}
    estimate = run(mk.ScoreFunction(kernels), Sum(), inputs)
    damping = mk.Laplace(1).characteristic_function(0.5)
    for name, truth in {"a": damping * np.cos(inputs["a"]), "b": 2 * inputs["b"]}.items():
        z = (estimate.gradient[name] - truth) / estimate.standard_error[name]
        assert np.abs(z).max() < 4.5  # false alarm 3e-5


@dataclass(frozen=True)
class OwnMeanTask(ScoreFunctionTask):
    """The fault to be found: the baseline holds the point's own value."""

    def __call__(self, start, stop):
        tallied, share = super().__call__(start, stop), (self.baseline - 1) / self.baseline
        # f_i - mean of all is (g - 1)/g times f_i - mean of the others.
        mean, m2 = tallied.gradient.mean * share, tallied.gradient.m2 * share**2
        return type(tallied)(Moments(tallied.gradient.n, mean, m2), {}, None)


def test_a_baseline_of_ones_own_value_would_be_found():
    class OwnMean(mk.ScoreFunction):
        def _task(self, setting, rows):
            return OwnMeanTask(setting, rows, self.baseline)

    truth = WAVES.smoothed_gradient(mk.Gaussian(WIDTHS), X, WIDTHS)
    assert is_unbiased(run(mk.ScoreFunction(mk.Gaussian(WIDTHS), baseline=4)), truth)
    assert not is_unbiased(run(OwnMean(mk.Gaussian(WIDTHS), baseline=4)), truth)


def test_a_baseline_from_tied_points_would_be_found():
    # A recentred group torn into units of one point: each baseline then depends on its point.
    class Torn(mk.ScoreFunction):
        def _groups(self):
            return mk.Recentred(8)

    truth = WAVES.smoothed_gradient(mk.Gaussian(WIDTHS), X, WIDTHS)
    assert not is_unbiased(run(Torn(mk.Gaussian(WIDTHS), baseline=8)), truth)


def test_a_constant_has_no_gradient_and_no_error():
    class Constant:
        def value(self, points):
            return np.full(len(points), 3.0)

    estimate = run(mk.ScoreFunction(mk.Gaussian(1.0)), Constant(), n=256)
    np.testing.assert_array_equal(estimate.gradient, 0)
    np.testing.assert_array_equal(estimate.standard_error, 0)


def test_adding_a_constant_changes_nothing_but_roundoff():
    class Raised:
        def value(self, points):
            return Values(WAVES).value(points) + 1024.0

    smooth = mk.ScoreFunction(mk.Gaussian(WIDTHS))
    low, high = run(smooth, n=512), run(smooth, Raised(), n=512)
    np.testing.assert_allclose(high.gradient, low.gradient, atol=1024 * 2.0**-52 * 100)
    np.testing.assert_allclose(high.output.value - 1024, low.output.value, atol=1024 * 2.0**-52)


def test_the_output_is_the_smoothed_value():
    estimate = run(mk.ScoreFunction(mk.Gaussian(WIDTHS)))
    z = (estimate.output.value - WAVES.smoothed_value(mk.Gaussian(WIDTHS), X, WIDTHS)) / (
        estimate.output.standard_error
    )
    assert abs(z) < 4.5


def test_intervals_cover():
    # 2000 runs of 64 groups; the six coordinates' errors are nearly independent.
    smooth = mk.ScoreFunction(mk.Gaussian(WIDTHS))
    runs = (run(smooth, n=1024, rng=seed) for seed in range(2000))
    share, error = coverage(runs, WAVES.smoothed_gradient(mk.Gaussian(WIDTHS), X, WIDTHS))
    assert error < 0.0025
    assert 0.94 <= share <= 0.96


@pytest.mark.parametrize("block", [1, 5, 16, 64])
def test_executors_blocks_in_flight_and_resuming_do_not_change_bits(block):
    smooth = mk.ScoreFunction(mk.Gaussian(WIDTHS), block=block)
    oracle = Counting(Values(WAVES))
    alone = run(smooth, oracle, n=160)
    assert set(oracle.rows) == {block}
    assert alone.block == block
    with ThreadPoolExecutor(3) as pool:
        together = run(smooth, n=160, executor=pool, in_flight=5)
    resumed = run(smooth, n=160, resume=run(smooth, n=96 if block < 64 else 128))
    for other in (together, resumed):
        np.testing.assert_array_equal(other.gradient, alone.gradient)
        np.testing.assert_array_equal(other.standard_error, alone.standard_error)


def test_a_batch_is_its_rows():
    smooth, rows = mk.ScoreFunction(mk.Gaussian(0.5)), np.stack([X, X + 1])
    batch = smooth.estimate_batch(Values(WAVES), rows, budget=mk.Evaluations(256), rng=4)
    for k, estimate in enumerate(batch):
        np.testing.assert_array_equal(estimate.gradient, run(smooth, x=rows[k], n=256, rng=(4, k)).gradient)


def test_a_view_has_an_error_bar_of_its_own():
    estimate = run(mk.ScoreFunction(mk.Gaussian(WIDTHS)), views={"sum": mk.ChannelSum()})
    truth = WAVES.smoothed_gradient(mk.Gaussian(WIDTHS), X, WIDTHS).sum()
    view = estimate.views["sum"]
    assert abs(view.value - truth) < 4.5 * view.standard_error


def test_float32_points_reach_a_float32_model():
    oracle = Counting(Values(Linear(np.ones(6))))
    run(mk.ScoreFunction(mk.Laplace(0.5)), oracle, X.astype(np.float32), n=64)
    assert {points.dtype for points in oracle.points} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kernel", WITHOUT_SCORE)
def test_a_kernel_without_a_score_is_refused_by_name(kernel):
    with pytest.raises(ValueError, match=rf"{kernel.__name__}\(0.5\).*use Secant"):
        run(mk.ScoreFunction(kernel(0.5)))


def test_a_formula_that_jumps_is_refused_too():
    cut = mk.from_density(lambda t: np.exp(-t * t / 2), scale=0.5, reach=1.0)
    with pytest.raises(ValueError, match="finite Fisher information"):
        run(mk.ScoreFunction(cut))


def test_a_fixed_coordinate_is_refused():
    with pytest.raises(ValueError, match=r"the input: 2 of 6 coordinates have a width of zero"):
        run(mk.ScoreFunction(mk.Gaussian(np.array([0, 1, 1, 0, 1, 1.0]))))


def test_an_input_without_a_kernel_is_refused():
    with pytest.raises(ValueError, match=r"input 'b': 1 of 1 .*no kernel.*held="):
        run(mk.ScoreFunction({"a": mk.Gaussian(1.0)}), x={"a": X, "b": np.ones(1)})


def test_a_bad_row_of_a_batch_is_named_before_the_model_is_called():
    oracle = Counting(Values(WAVES))
    smooth = mk.ScoreFunction(mk.Gaussian(mk.OfMagnitude(0.1)))
    with pytest.raises(ValueError, match="row 1: the input: 1 of 6"):
        smooth.estimate_batch(oracle, np.stack([X, [0, 1, 1, 1, 1, 1]]), budget=mk.Evaluations(256))
    assert not oracle.rows


def test_an_oracle_without_values_is_refused():
    with pytest.raises(TypeError, match=r"PlaneWaves has no value\(points\).*Pathwise"):
        run(mk.ScoreFunction(mk.Gaussian(1.0)), WAVES)


def test_pathwise_refuses_a_black_box():
    with pytest.raises(TypeError, match=r"Values has no value_and_gradient.*Secant and ScoreFunction"):
        run(mk.Pathwise(mk.Gaussian(1.0)))


def test_a_useless_budget_is_refused_unless_told_otherwise():
    x, oracle = np.zeros(40), Counting(Values(Linear(np.ones(40))))
    with pytest.raises(ValueError, match=r"allows 64 evaluations.*needs 80.*InBasis.*allow_poor"):
        run(mk.ScoreFunction(mk.Gaussian(1.0)), oracle, x, n=79)
    assert not oracle.rows
    assert run(mk.ScoreFunction(mk.Gaussian(1.0), allow_poor=True), oracle, x, n=79).n_evaluations == 64


def test_a_clock_that_ends_too_early_warns():
    import time

    class Slow:
        def value(self, points):
            time.sleep(0.02)
            return points.sum(1)

    with pytest.warns(UserWarning, match=r"Seconds\(s=0.01\) ended ScoreFunction after .* needs 2000"):
        mk.ScoreFunction(mk.Gaussian(1.0)).estimate(Slow(), np.zeros(1000), budget=mk.Seconds(0.01), rng=0)


def test_a_baseline_of_one_unit_is_refused():
    with pytest.raises(ValueError, match="baseline=1"):
        mk.ScoreFunction(mk.Gaussian(1.0), baseline=1)


def test_values_of_a_wrong_shape_or_nan_are_refused():
    class Column:
        def value(self, points):
            return points[:, :1]

    class Logarithm:
        def value(self, points):
            return np.where(points > 0, points, np.nan).sum(1)

    with pytest.raises(ValueError, match=r"values have shape .*points need"):
        run(mk.ScoreFunction(mk.Gaussian(1.0)), Column())
    with pytest.raises(FloatingPointError, match="NaN or infinite at"):
        run(mk.ScoreFunction(mk.Gaussian(1.0)), Logarithm())
