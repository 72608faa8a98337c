from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import mollikit as mk
from mollikit.kernels.base import Kernel
from mollikit.pointsets import Normals, Uniforms
from mollikit.testing import central_step, rounding

SCIPY = {
    mk.Gaussian(1.0): stats.norm,
    mk.Uniform(1.0): stats.uniform(-1, 2),
    mk.Logistic(1.0): stats.logistic,
    mk.Laplace(1.0): stats.laplace,
    mk.Cauchy(1.0): stats.cauchy,
    mk.HyperbolicSecant(1.0): stats.hypsecant,
    mk.StudentT(1.0, nu=4): stats.t(4),
    mk.Triangular(1.0): stats.triang(0.5, -1, 2),
    mk.Epanechnikov(1.0): stats.beta(2, 2, -1, 2),
}
QUADRATURE = 1e-9  # what quad promises (1.5e-8 absolute) is exceeded on these smooth pieces
# Away from 0 and +-1, where some densities have a kink or end.
POINTS = np.array([-0.93, -0.4, -0.05, 0.11, 0.5, 0.77])
WIDE = np.array([-7.3, -2.1, 1.4, 5.9])
LEVELS = np.array([1e-6, 0.01, 0.2, 0.5, 0.73, 0.95, 1 - 1e-6])

every_kernel = pytest.mark.parametrize("kernel", [*SCIPY], ids=repr)


def points_inside(kernel):
    return np.concatenate([POINTS, WIDE]) if np.isinf(kernel.support[1]) else POINTS


def integral(kernel, function=lambda t: 1.0):
    """Of the density times an even function, over the line: twice that over the right half."""
    return 2 * quad(lambda t: float(kernel.density(t)) * function(t), 0, kernel.support[1], epsabs=1e-13)[0]


@every_kernel
def test_the_density_integrates_to_one(kernel):
    assert abs(integral(kernel) - 1) < QUADRATURE


@every_kernel
def test_the_density_is_even_and_zero_outside_its_support(kernel):
    t = np.linspace(0, 30, 1001)
    np.testing.assert_array_equal(kernel.density(t), kernel.density(-t))
    np.testing.assert_array_equal(kernel.score(t), -kernel.score(-t))
    assert (kernel.density(t[t > kernel.support[1]]) == 0).all()


@every_kernel
@pytest.mark.parametrize("u", LEVELS)
def test_the_inverse_cdf_inverts_the_integrated_density(kernel, u):
    quantile = float(kernel.inverse_cdf(u))
    # In pieces of doubling length, for the tails of the Cauchy.
    ends = np.sign(quantile) * np.concatenate([[0], np.geomspace(1, 2**20, 21)])
    ends = np.append(ends[np.abs(ends) < abs(quantile)], quantile)
    pieces = [
        quad(lambda t: float(kernel.density(t)), a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(ends)
    ]
    assert abs(0.5 + sum(pieces) - u) < QUADRATURE


@every_kernel
def test_the_inverse_cdf_is_odd_about_one_half(kernel):
    u = (np.arange(1, 4096) + 0.5) / 8192
    np.testing.assert_allclose(kernel.inverse_cdf(1 - u), -kernel.inverse_cdf(u), rtol=rounding(float))


@every_kernel
def test_the_score_is_the_derivative_of_the_log_density(kernel):
    t, h = points_inside(kernel), central_step(float)
    slope = (np.log(kernel.density(t + h)) - np.log(kernel.density(t - h))) / (2 * h)
    np.testing.assert_allclose(kernel.score(t), slope, atol=20 * h**2)


@every_kernel
@pytest.mark.parametrize("omega", [0.0, 1e-9, 0.3, 1.0, 2.7, 6.0])
def test_the_characteristic_function_is_the_cosine_transform(kernel, omega):
    if omega > 1e-3:
        density, end = lambda t: float(kernel.density(t)), kernel.support[1]
        # QAWF, for an infinite end, has an absolute tolerance alone.
        transform = 2 * quad(density, 0, end, weight="cos", wvar=omega, epsabs=1e-11, limlst=200)[0]
    else:
        transform = integral(kernel) - omega  # the Cauchy's 1 - |omega|; others fall as its square
    assert abs(float(kernel.characteristic_function(omega)) - transform) < 2e-9
    assert float(kernel.characteristic_function(-omega)) == float(kernel.characteristic_function(omega))


@every_kernel
def test_the_variance_is_the_second_moment(kernel):
    if np.isinf(kernel.variance):
        assert kernel.density(1e6) * 1e6**3 > 1  # tails of t^-2 or heavier
    else:
        assert abs(integral(kernel, lambda t: t**2) / kernel.variance - 1) < QUADRATURE


@every_kernel
def test_the_fisher_information_is_the_second_moment_of_the_score(kernel):
    if np.isfinite(kernel.fisher_information):
        information = integral(kernel, lambda t: float(kernel.score(t)) ** 2)
        assert abs(information / kernel.fisher_information - 1) < QUADRATURE
    else:
        # The density jumps at 1, or falls so steeply that the integral of the score squared diverges there.
        before = [1 - 1e-3, 1 - 1e-6, 1 - 1e-9]
        steps = [float(kernel.density(t) * kernel.score(t) ** 2 * (1 - t)) for t in before]
        assert kernel.density(1) > 0 or min(steps) > 0.5


@every_kernel
def test_agreement_with_scipy(kernel):
    theirs, t = SCIPY[kernel], points_inside(kernel)
    np.testing.assert_allclose(kernel.density(t), theirs.pdf(t), rtol=rounding(float))
    np.testing.assert_allclose(
        kernel.inverse_cdf(LEVELS), theirs.ppf(LEVELS), rtol=rounding(float), atol=1e-15
    )
    if np.isfinite(kernel.variance):
        np.testing.assert_allclose(kernel.variance, theirs.var(), rtol=rounding(float))


@every_kernel
@pytest.mark.parametrize("view", [Normals, Uniforms])
def test_displacements_have_the_kernels_law(kernel, view):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(40_000) if view is Normals else rng.random(40_000)
    drawn = kernel.displacements(view(values))
    # False alarm rate 1e-4; the control is the same law with a width off by a tenth.
    assert stats.kstest(drawn, SCIPY[kernel].cdf).pvalue > 1e-4
    assert stats.kstest(1.1 * drawn, SCIPY[kernel].cdf).pvalue < 1e-4


@every_kernel
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reflection_is_exact_and_precision_is_kept(kernel, dtype):
    z = np.random.default_rng(1).standard_normal(10_000).astype(dtype)
    there, back = kernel.displacements(Normals(z)), kernel.displacements(Normals(-z))
    np.testing.assert_array_equal(there, -back)
    assert there.dtype == dtype


@every_kernel
@pytest.mark.parametrize(("dtype", "farthest"), [(np.float32, 8.3), (np.float64, 13.8)])
def test_deep_tails_are_finite_and_right(kernel, dtype, farthest):
    # farthest: the largest normal that the ziggurat's tail can give in this precision.
    z = np.linspace(3, farthest, 50, dtype=dtype)
    drawn = kernel.displacements(Normals(z))
    expected = -SCIPY[kernel].ppf(stats.norm.cdf(-z.astype(float)))
    np.testing.assert_allclose(drawn, expected, rtol=rounding(dtype))
    ends = kernel.displacements(Uniforms(np.array([2.0**-53, 1 - 2.0**-53])))
    assert np.isfinite(ends).all()
    assert (np.abs(ends) <= kernel.support[1]).all()


class Skewed(Kernel):
    """A control: exponential, which is not even and whose score is wrong by a factor."""

    variance = 1.0
    fisher_information = 1.0

    def density(self, t):
        return np.exp(-np.maximum(t, 0)) * (np.asarray(t) >= 0)

    def cdf(self, t):
        return -np.expm1(-np.maximum(t, 0))

    def inverse_cdf(self, u):
        return -np.log1p(-np.asarray(u))

    def score(self, t):
        return -2 * np.ones_like(t)

    def characteristic_function(self, omega):
        return 1 / (1 + np.square(omega))


@pytest.mark.parametrize(
    "check",
    [
        test_the_density_integrates_to_one,
        test_the_density_is_even_and_zero_outside_its_support,
        test_the_inverse_cdf_is_odd_about_one_half,
        test_the_score_is_the_derivative_of_the_log_density,
    ],
)
def test_a_kernel_that_breaks_the_laws_fails(check):
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check(Skewed(1.0))


def test_a_scale_is_kept_as_it_was_given():
    kernel = mk.Gaussian(mk.OfRange(0.15))
    assert repr(kernel) == "Gaussian(OfRange(fraction=0.15))"
    np.testing.assert_allclose(kernel.widths(np.array([1.0, 3.0])), 0.3)
