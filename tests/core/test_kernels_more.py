"""What the kernels say of themselves beyond their laws: CDF, smoothness, moments, widths; pickling."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import mollikit as mk
from mollikit.kernels.measured import holder_exponent, integral, moment_limit
from mollikit.pointsets import Normals, Uniforms
from mollikit.testing import central_step, rounding

KERNELS = (
    mk.Gaussian(1.0),
    mk.Uniform(1.0),
    mk.Logistic(1.0),
    mk.Laplace(1.0),
    mk.Cauchy(1.0),
    mk.HyperbolicSecant(1.0),
    mk.StudentT(1.0, nu=4),
    mk.StudentT(1.0, nu=1.5),
    mk.Triangular(1.0),
    mk.Epanechnikov(1.0),
    mk.Bump(1.0),
)
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=repr)


def inside(kernel, n=201):
    reach = min(kernel.support[1], 20.0)
    return np.linspace(-reach, reach, n + 2)[1:-1]


@every_kernel
def test_the_cdf_is_the_inverse_of_the_quantile_function(kernel):
    u = np.concatenate([np.geomspace(1e-12, 0.4, 60), np.linspace(0.4, 1 - 1e-6, 60)])
    # The bump is inverted numerically, to 1e-12 in probability.
    np.testing.assert_allclose(kernel.cdf(kernel.inverse_cdf(u)), u, rtol=rounding(float), atol=2e-12)


@every_kernel
def test_the_cdf_grows_by_the_density(kernel):
    t = inside(kernel)
    for a, b in zip(t[:-1:8], t[8::8], strict=True):
        mass = quad(lambda x: float(kernel.density(x)), a, b, points=[0.0] if a < 0 < b else None)[0]
        assert abs(float(kernel.cdf(b) - kernel.cdf(a)) - mass) < 1e-11


@every_kernel
def test_the_cdf_is_0_and_1_beyond_the_support(kernel):
    reach = kernel.support[1]
    far = 2 * reach if np.isfinite(reach) else 1e300
    assert float(kernel.cdf(-far)) < 1e-100
    assert float(kernel.cdf(far)) == 1.0


@every_kernel
def test_the_stated_smoothness_and_moments_are_what_can_be_measured(kernel):
    length, reach = float(kernel.inverse_cdf(0.75)), kernel.support[1]
    seen = holder_exponent(kernel.density, length, reach)
    # Three derivatives are as many as fourth differences see.
    assert seen.smoothness == min(kernel.smoothness, 3)
    assert seen.spread < 0.05
    assert moment_limit(kernel.density, length, reach) == pytest.approx(kernel.moment_limit, abs=1e-4)


@pytest.mark.parametrize(("power", "smoothness"), [(0, -1), (1, 0), (2, 1), (3, 2), (4, 3), (6, 3)])
@pytest.mark.parametrize("reach", [0.01, 1.0, 70.0])
def test_the_measured_smoothness_counts_derivatives(power, smoothness, reach):
    def density(t):
        return np.where(np.abs(t) <= reach, np.abs(1 - (t / reach) ** 2), 0.0) ** power * (np.abs(t) <= reach)

    assert holder_exponent(density, 0.4 * reach, reach).smoothness == smoothness


@every_kernel
def test_moments_exist_below_the_stated_limit_and_not_at_it(kernel):
    limit = kernel.moment_limit
    if np.isinf(limit):
        orders = (8.0,)
    else:
        orders = (0.9 * limit,)
        # E|t|^a grows without bound: a decade of t carries as much at 1e9 as at 1e6.
        decades = [
            integral(lambda t: t**limit * float(kernel.density(t)), low, 10 * low, low).value
            for low in (1e6, 1e9)
        ]
        assert decades[1] == pytest.approx(decades[0], rel=1e-4)
    for order in orders:
        ends = np.concatenate([[0], np.geomspace(1, 1e6, 7)]) if np.isinf(kernel.support[1]) else [0, 1.0]
        parts = [
            quad(lambda t, a=order: t**a * float(kernel.density(t)), a, b)[0]
            for a, b in itertools.pairwise(ends)
        ]
        assert np.isfinite(parts).all()
        assert len(parts) == 1 or parts[-1] < parts[-2] or parts[-1] < 1e-9 * sum(parts)


@every_kernel
@pytest.mark.parametrize("by", ["std", "iqr"])
def test_matched_kernels_have_one_width(kernel, by):
    x = np.zeros(3)
    if by == "std" and np.isinf(kernel.variance):
        with pytest.raises(ValueError, match=r"no standard deviation; match it by its quartiles"):
            kernel.matched(by)
        return
    matched = type(kernel).matched(kernel, by)
    widths = matched.widths(x)
    width = widths * (
        np.sqrt(kernel.variance) if by == "std" else kernel.inverse_cdf(0.75) / stats.norm.ppf(0.75)
    )
    np.testing.assert_allclose(width, 1.0, rtol=rounding(float))
    np.testing.assert_allclose(
        matched.matched(by).widths(x), widths / kernel.scale.value * widths, rtol=1e-12
    )


def test_matching_keeps_a_rule_and_the_parameters():
    kernel = mk.StudentT(mk.OfRange(0.1), nu=6).matched("std")
    assert kernel.nu == 6
    np.testing.assert_allclose(kernel.widths(np.array([0.0, 2.0])), 0.2 / np.sqrt(1.5))


@every_kernel
def test_a_pickled_kernel_is_the_same_kernel(kernel):
    kernel.inverse_cdf(0.3)  # with whatever it caches
    again = pickle.loads(pickle.dumps(kernel))
    points = Normals(np.random.default_rng(0).standard_normal(1000))
    np.testing.assert_array_equal(again.displacements(points), kernel.displacements(points))
    assert repr(again) == repr(kernel)


class TestBump:
    """The built-in kernel without a closed form, held to the laws of tests/core/test_kernels.py."""

    kernel = mk.Bump(1.0)

    def test_density(self):
        mass = quad(lambda t: np.exp(-1 / (1 - t * t)), -1, 1, epsabs=1e-14)[0]
        t = np.array([-0.99, -0.3, 0.0, 0.7])
        np.testing.assert_allclose(self.kernel.density(t), np.exp(-1 / (1 - t**2)) / mass, rtol=1e-11)
        np.testing.assert_array_equal(self.kernel.density([-1.0, 1.0, 3.0]), 0.0)

    def test_score(self):
        t, h = np.array([-0.9, -0.2, 0.0, 0.55, 0.95]), central_step(float)
        slope = np.log(self.kernel.density(t + h) / self.kernel.density(t - h)) / (2 * h)
        np.testing.assert_allclose(self.kernel.score(t), slope, rtol=1e-6, atol=1e-9)
        assert np.isfinite(self.kernel.score([-1.0, 1.0])).all()

    def test_moments_and_fisher_information(self):
        for told, function in (
            (self.kernel.variance, lambda t: t * t),
            (self.kernel.fisher_information, lambda t: (2 * t / (1 - t * t) ** 2) ** 2),
        ):
            truth = quad(
                lambda t, f=function: f(t) * float(self.kernel.density(t)), -0.99999, 0.99999, limit=200
            )[0]
            assert told == pytest.approx(truth, rel=1e-8)

    @pytest.mark.parametrize("omega", [0.0, 1e-6, 0.5, 3.0, 25.0, 200.0])
    def test_characteristic_function(self, omega):
        # The trapezoidal rule converges faster than any power for a function that is flat at its ends.
        t = np.linspace(-1, 1, 20_001)
        transform = (self.kernel.density(t) * np.cos(omega * t)).sum() * (t[1] - t[0])
        assert abs(float(self.kernel.characteristic_function(omega)) - transform) < 1e-11

    @pytest.mark.parametrize("view", [Normals, Uniforms])
    def test_displacements(self, view):
        rng = np.random.default_rng(3)
        values = rng.standard_normal(20_000) if view is Normals else rng.random(20_000)
        drawn = self.kernel.displacements(view(values))
        assert stats.kstest(drawn, self.kernel.cdf).pvalue > 1e-4
        assert stats.kstest(1.1 * drawn, self.kernel.cdf).pvalue < 1e-4

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_reflection_and_precision(self, dtype):
        z = np.random.default_rng(1).standard_normal(1000).astype(dtype)
        there = self.kernel.displacements(Normals(z))
        np.testing.assert_array_equal(there, -self.kernel.displacements(Normals(-z)))
        assert there.dtype == dtype
        assert (np.abs(self.kernel.displacements(Normals(np.array([-13.0, 13.0], dtype)))) <= 1).all()
