from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import mollikit as mk
from mollikit.estimators.frames import HaarFrames, haar
from mollikit.estimators.radii import secant_radii
from mollikit.pointsets import Uniforms
from tests.core.black_boxes import ALL_KERNELS, Counting, Values, coverage, is_unbiased
from tests.core.closed_forms import Cubic, Linear, PlaneWaves, Quadratic, waves

X = np.linspace(-1, 1, 6)
WIDTHS = np.array([0.2, 0.5, 0.8, 0.3, 0.6, 0.4])
WAVES = waves()


def run(smooth, oracle=None, x=X, n=1 << 14, rng=0, **options):
    return smooth.estimate(oracle or Values(WAVES), x, budget=mk.Evaluations(n), rng=rng, **options)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_waves_are_unbiased_under_every_kernel(kernel):
    truth = WAVES.smoothed_gradient(kernel(WIDTHS), X, WIDTHS)
    assert is_unbiased(run(mk.Secant(kernel(WIDTHS))), truth)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linear_function_is_exact(kernel, dtype):
    weights = np.linspace(-3, 2, 6)
    estimate = run(mk.Secant(kernel(WIDTHS)), Values(Linear(weights)), X.astype(dtype), n=8 * 12)
    # Values are rounded, of the size of w . x; they are divided by the length of an arm, and a short one is
    # rare: its density falls as r^2 (as r under a kernel with a kink at zero).
    atol = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(estimate.gradient, weights, atol=atol)


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_is_exact_under_frames(seed):
    a = np.random.default_rng(seed).standard_normal((6, 6))
    form = Quadratic(a + a.T)
    estimate = run(mk.Secant(mk.Gaussian(WIDTHS)), Values(form), n=8 * 12, rng=seed)
    np.testing.assert_allclose(estimate.gradient, form.matrix @ X, atol=1e-12)


@pytest.mark.parametrize("kernel", [mk.Uniform, mk.Laplace])
def test_a_quadratic_is_unbiased_under_the_other_kernels(kernel):
    a = np.random.default_rng(0).standard_normal((6, 6))
    form = Quadratic(a + a.T)
    assert is_unbiased(run(mk.Secant(kernel(WIDTHS)), Values(form)), form.matrix @ X)


@pytest.mark.parametrize("dimension", [1, 2, 20])
def test_a_cubic_tells_the_radii(dimension):
    x, widths = np.linspace(-1, 1, dimension), np.linspace(0.5, 1, dimension)
    estimate = run(mk.Secant(mk.Gaussian(widths)), Values(Cubic()), x)
    assert is_unbiased(estimate, 3 * (x**2 + widths**2))


@dataclass(frozen=True)
class NormalRadii(HaarFrames):
    """The fault to be found: the radii of a normal vector, chi_d."""

    def radii(self, rng, groups, dimension):
        return np.sqrt(rng.chisquare(dimension, size=(groups, dimension)))


def test_radii_of_a_normal_vector_would_be_found():
    class Wrong(mk.Secant):
        def _groups(self):
            return NormalRadii()

    for form in (Cubic(), WAVES):
        truth = form.smoothed_gradient(mk.Gaussian(WIDTHS), X, WIDTHS)
        assert is_unbiased(run(mk.Secant(mk.Gaussian(WIDTHS)), Values(form)), truth)
        assert not is_unbiased(run(Wrong(mk.Gaussian(WIDTHS)), Values(form)), truth)


def test_a_secant_without_jitter_would_be_found():
    class Still(mk.Uniform):
        def displacements(self, points):
            return 1e-9 * super().displacements(points)

    truth = WAVES.smoothed_gradient(mk.Uniform(WIDTHS), X, WIDTHS)
    assert not is_unbiased(run(mk.Secant(Still(WIDTHS))), truth)


def test_frames_are_orthonormal_and_their_directions_uniform():
    frames = haar(np.random.default_rng(0), 4000, 5)
    np.testing.assert_allclose(
        frames @ frames.swapaxes(1, 2), np.broadcast_to(np.eye(5), (4000, 5, 5)), atol=1e-13
    )
    for row in range(5):
        # A coordinate of a uniform direction: (1 + u) / 2 ~ Beta((d - 1)/2, (d - 1)/2). False alarm 1e-4.
        for column in range(5):
            u = frames[:, row, column]
            assert stats.kstest((1 + u) / 2, stats.beta(2, 2).cdf).pvalue > 1e-4
        assert abs(frames[:, row, 0].mean()) < 4.5 / np.sqrt(5 * 4000)
    # Uniform in the whole orthogonal group, reflections included.
    share = (np.linalg.det(frames) > 0).mean()
    assert abs(share - 0.5) < 4.5 * 0.5 / np.sqrt(4000)


CLOSED_RADII = {
    mk.Gaussian: stats.chi(3),
    mk.Laplace: stats.gamma(2),
    mk.Triangular: stats.beta(2, 1),
    mk.Epanechnikov: stats.beta(3, 1),
}


def radii(kernel, n=1 << 14):
    u = np.random.default_rng(3).random((2, n)) * (1 - 2**-40) + 2**-41
    return secant_radii(kernel, kernel.displacements(Uniforms(u[0])), u[1])


@pytest.mark.parametrize("kernel", CLOSED_RADII)
def test_radii_have_their_law(kernel):
    assert stats.kstest(radii(kernel(1.0)), CLOSED_RADII[kernel].cdf).pvalue > 1e-4


@pytest.mark.parametrize("kernel", [mk.Logistic, mk.HyperbolicSecant, mk.Cauchy, mk.StudentT, mk.Bump])
def test_radii_of_the_other_kernels_have_theirs(kernel):
    k, r = kernel(1.0), radii(kernel(1.0))
    reach = k.support[1]
    for place in np.quantile(r, [0.1, 0.5, 0.9]):
        # int_0^R -2 r K'(r) dr = 2 int_0^R K - 2 R K(R)
        share = 2 * quad(lambda t: float(k.density(t)), 0, min(place, reach))[0] - 2 * place * float(
            k.density(place)
        )
        assert abs((r <= place).mean() - share) < 4.5 * np.sqrt(share * (1 - share) / r.size)


def test_the_radii_of_a_box_are_its_faces():
    np.testing.assert_array_equal(radii(mk.Uniform(1.0)), 1.0)


def test_the_ends_of_a_box_secant_lie_on_opposite_faces():
    oracle = Counting(Values(WAVES))
    run(mk.Secant(mk.Uniform(WIDTHS), block=12), oracle, n=8 * 12)
    for points in oracle.points:
        plus, minus = ((points - X) / WIDTHS).reshape(2, 6, 6)
        np.testing.assert_allclose(np.diag(plus), 1)
        np.testing.assert_allclose(np.diag(minus), -1)
        np.testing.assert_array_equal(plus[~np.eye(6, dtype=bool)], minus[~np.eye(6, dtype=bool)])
        assert np.abs(plus).max() <= 1 + 1e-12


def test_a_formula_of_ones_own():
    kernel = mk.from_density(lambda t: 1 / (1 + t**4), scale=0.4)
    truth = WAVES.smoothed_gradient(kernel, X, np.full(6, 0.4))
    assert is_unbiased(run(mk.Secant(kernel), n=1 << 12), truth)


def test_a_formula_that_jumps():
    kernel = mk.from_density(lambda t: 2 - t * t, scale=0.5, reach=1.0)
    truth = WAVES.smoothed_gradient(kernel, X, np.full(6, 0.5))
    assert is_unbiased(run(mk.Secant(kernel), n=1 << 12), truth)


def test_a_density_of_two_peaks_is_refused():
    kernel = mk.from_density(lambda t: t * t * np.exp(-t * t), scale=0.5)
    with pytest.raises(ValueError, match=r"falls away from zero.*rises near"):
        run(mk.Secant(kernel))


def test_several_inputs_each_with_its_kernel():
    class Sum:
        def value(self, points):
            return np.sin(points["a"]).sum(1) * (points["b"] ** 2).sum((1, 2))

    inputs = {"a": np.array([0.3, 2.0]), "b": np.array([[1.0], [-2.0], [0.5]])}
    for first in (mk.Gaussian, mk.Uniform):
        kernel, widths = first(0.5), 0.2
        estimate = run(mk.Secant({"a": kernel, "b": mk.Gaussian(widths)}), Sum(), inputs)
        damping = kernel.characteristic_function(0.5)
        square = (inputs["b"] ** 2).sum() + 3 * widths**2
        truths = {
            "a": damping * np.cos(inputs["a"]) * square,
            "b": 2 * inputs["b"] * damping * np.sin(inputs["a"]).sum(),
        }
        for name, truth in truths.items():
            z = (estimate.gradient[name] - truth) / estimate.standard_error[name]
            assert np.abs(z).max() < 4.5  # false alarm 3e-5


@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Uniform, mk.Laplace])
def test_intervals_of_the_fewest_frames_cover(kernel):
    # 8 frames, 2500 runs; waves along many directions, whose errors are nearly normal.
    form = PlaneWaves(np.random.default_rng(8).normal(0, 0.5, (12, 6)))
    smooth, truth = mk.Secant(kernel(0.8)), form.smoothed_gradient(kernel(0.8), X, np.full(6, 0.8))
    share, error = coverage((run(smooth, Values(form), n=96, rng=seed) for seed in range(2500)), truth)
    assert error < 0.0025
    assert 0.94 <= share <= 0.96


@pytest.mark.parametrize("block", [1, 7, 12, 36])
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Laplace])
def test_executors_blocks_in_flight_and_resuming_do_not_change_bits(kernel, block):
    smooth, oracle = mk.Secant(kernel(WIDTHS), block=block), Counting(Values(WAVES))
    alone = run(smooth, oracle, n=144)
    assert set(oracle.rows) == {block}
    assert alone.block == block
    with ThreadPoolExecutor(3) as pool:
        together = run(smooth, n=144, executor=pool, in_flight=5)
    resumed = run(smooth, n=144, resume=run(smooth, n=108))
    for other in (together, resumed):
        np.testing.assert_array_equal(other.gradient, alone.gradient)
        np.testing.assert_array_equal(other.standard_error, alone.standard_error)


def test_processes_give_the_same_bits():
    smooth = mk.Secant(mk.Gaussian(WIDTHS), block=24)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        elsewhere = run(smooth, n=120, executor=pool)
    np.testing.assert_array_equal(elsewhere.gradient, run(smooth, n=120).gradient)


def test_too_little_memory_begins_anew_with_fewer_rows():
    class Small(Counting):
        def value(self, points, **held):
            if len(points) > 5:
                raise MemoryError
            return super().value(points, **held)

    estimate = run(mk.Secant(mk.Gaussian(WIDTHS)), Small(Values(WAVES)), n=144)
    assert estimate.block <= 5
    again = run(mk.Secant(mk.Gaussian(WIDTHS), block=estimate.block), n=144)
    np.testing.assert_array_equal(estimate.gradient, again.gradient)


def test_held_arrays_travel_with_every_call():
    class Weighted:
        def value(self, points, weight):
            assert weight.shape == (len(points),)
            return points.sum(1) * weight

    estimate = run(mk.Secant(mk.Gaussian(1.0), block=5), Weighted(), n=96, held={"weight": 3.0})
    np.testing.assert_allclose(estimate.gradient, 3)


def test_a_batch_is_its_rows():
    smooth, rows = mk.Secant(mk.Gaussian(0.5)), np.stack([X, X + 1])
    batch = smooth.estimate_batch(Values(WAVES), rows, budget=mk.Evaluations(96), rng=4)
    for k, estimate in enumerate(batch):
        np.testing.assert_array_equal(estimate.gradient, run(smooth, x=rows[k], n=96, rng=(4, k)).gradient)


def test_an_estimate_by_the_other_frames_is_not_resumed():
    coordinates = run(mk.Secant(mk.Uniform(0.5)), n=96)
    with pytest.raises(ValueError, match="kernels: Uniform"):
        run(mk.Secant(mk.Gaussian(0.5)), n=192, resume=coordinates)


def test_fewer_than_eight_frames_are_refused_unless_told_otherwise():
    oracle = Counting(Values(WAVES))
    with pytest.raises(
        ValueError, match=r"allows 84 evaluations, in groups of 12.*needs 96.*InBasis.*allow_poor"
    ):
        run(mk.Secant(mk.Gaussian(0.5)), oracle, n=95)
    assert not oracle.rows
    assert run(mk.Secant(mk.Gaussian(0.5), allow_poor=True), n=24).n_groups == 2


def test_a_fixed_coordinate_is_refused():
    with pytest.raises(ValueError, match="1 of 6 coordinates have a width of zero"):
        run(mk.Secant(mk.Gaussian(np.array([0, 1, 1, 1, 1, 1.0]))))


def test_a_block_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        run(mk.Secant(mk.Gaussian(0.5), block=0))
