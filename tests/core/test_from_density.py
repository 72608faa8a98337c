"""Kernels from a formula."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.pointsets import Normals
from mollikit.testing import central_step
from tests.core.closed_forms import Cubic


def gaussian(t):
    return math.exp(-t * t / 2)


def cauchy(t):
    return 1 / (1 + t * t)


def laplace(t):
    return 7 * math.exp(-abs(t))


def logistic(t):
    return math.exp(-abs(t)) / (1 + math.exp(-abs(t))) ** 2


def triangular(t):
    return 1 - abs(t)


def quartic(t):
    return 1 / (1 + t**4)


def two_humps(t):
    return math.exp(-8 * (abs(t) - 5) ** 2)


TWINS = [
    (mk.from_density(gaussian, 1.0), mk.Gaussian(1.0)),
    (mk.from_density(cauchy, 1.0), mk.Cauchy(1.0)),
    (mk.from_density(laplace, 1.0), mk.Laplace(1.0)),
    (mk.from_density(logistic, 1.0), mk.Logistic(1.0)),
    (mk.from_density(triangular, 1.0, reach=1.0), mk.Triangular(1.0)),
    (mk.from_density(lambda t: 3.0, 1.0, reach=1.0), mk.Uniform(1.0)),
    (mk.from_density(lambda t: 1 - t * t, 1.0, reach=1.0), mk.Epanechnikov(1.0)),
]
twins = pytest.mark.parametrize(("made", "known"), TWINS, ids=lambda kernel: repr(kernel))


@twins
def test_a_known_formula_becomes_the_known_kernel(made, known):
    t = np.array([-0.93, -0.4, 0.0, 0.11, 0.77])
    u = np.array([1e-9, 1e-4, 0.02, 0.3, 0.5, 0.6, 0.999])
    omega = np.array([0.0, 1e-7, 1e-3, 0.4, 2.0, 9.0, 60.0])
    np.testing.assert_allclose(made.density(t), known.density(t), rtol=1e-8)
    np.testing.assert_allclose(made.cdf(t), known.cdf(t), atol=2e-12)
    np.testing.assert_allclose(known.cdf(made.inverse_cdf(u)), u, atol=2e-11)
    np.testing.assert_allclose(
        made.characteristic_function(omega), known.characteristic_function(omega), atol=1e-8
    )
    smooth = t[t != 0]
    np.testing.assert_allclose(made.score(smooth), known.score(smooth), atol=20 * central_step(float) ** 2)
    assert made.variance == pytest.approx(known.variance, rel=1e-7)
    assert made.fisher_information == pytest.approx(known.fisher_information, rel=1e-6)
    assert made.support == known.support


@twins
def test_the_stated_error_of_the_inverse_cdf_is_its_error(made, known):
    u = np.geomspace(1e-9, 0.49, 500)
    found = np.abs(known.cdf(made.inverse_cdf(u)) - u).max()
    assert found < 2 * made.u_error + 1e-12
    assert made.u_error < 1e-10


@twins
def test_quantiles_are_odd_about_one_half(made, known):
    off = np.ldexp(np.arange(1, 512), -10)
    np.testing.assert_array_equal(made.inverse_cdf(0.5 + off), -made.inverse_cdf(0.5 - off))


@pytest.mark.parametrize("kernel", [mk.Bump(1.0), mk.from_density(quartic, 1.0)], ids=repr)
def test_points_have_the_law_in_both_precisions(kernel):
    z = np.random.default_rng(0).standard_normal(20_000)
    steps = kernel.displacements(Normals(z))
    assert stats.kstest(steps, kernel.cdf).pvalue > 1e-3
    single = kernel.displacements(Normals(z.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, steps, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("width", [1e-8, 1e-3, 1e5])
@pytest.mark.parametrize("formula", [gaussian, cauchy, quartic], ids=lambda f: f.__name__)
def test_a_formula_of_any_width_is_the_scaled_kernel(formula, width):
    one, wide = mk.from_density(formula, 1.0), mk.from_density(lambda t: formula(t / width), 1.0)
    u = np.array([1e-6, 0.1, 0.6, 0.99])
    assert wide.mass == pytest.approx(width * one.mass, rel=1e-7)
    assert wide.variance == pytest.approx(width**2 * one.variance, rel=1e-6)
    assert wide.fisher_information == pytest.approx(one.fisher_information / width**2, rel=1e-6)
    np.testing.assert_allclose(one.cdf(wide.inverse_cdf(u) / width), u, rtol=1e-4, atol=1e-10)
    omega = np.array([0.01, 1.0, 5.0])
    np.testing.assert_allclose(
        wide.characteristic_function(omega / width), one.characteristic_function(omega), atol=1e-9
    )


def test_a_density_of_two_humps_is_inverted():
    kernel = mk.from_density(two_humps, 1.0)
    assert kernel.u_error < 1e-8
    assert kernel.variance == pytest.approx(25 + 1 / 16, rel=1e-9)
    drawn = kernel.displacements(Normals(np.random.default_rng(0).standard_normal(20_000)))
    truth = stats.norm(5, 0.25)
    assert stats.kstest(np.abs(drawn), truth.cdf).pvalue > 1e-4
    assert abs((drawn > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(drawn.size)


def test_a_formula_need_not_be_defined_at_the_ends_of_its_support():
    made, bump = mk.from_density(lambda t: math.exp(-1 / (1 - t * t)), 1.0, reach=1.0), mk.Bump(1.0)
    u, omega = np.linspace(0.01, 0.99, 25), np.array([0.3, 4.0, 40.0])
    np.testing.assert_allclose(made.inverse_cdf(u), bump.inverse_cdf(u), atol=1e-10)
    np.testing.assert_allclose(
        made.characteristic_function(omega), bump.characteristic_function(omega), atol=1e-11
    )


def test_infinite_moments_are_seen():
    heavy = mk.from_density(lambda t: (1 + abs(t)) ** -3, 1.0)
    assert heavy.variance == np.inf
    lighter = mk.from_density(lambda t: (1 + abs(t)) ** -3.2, 1.0)
    assert np.isfinite(lighter.variance)


def test_an_infinite_fisher_information_is_seen():
    assert mk.from_density(lambda t: 1 - t * t, 1.0, reach=1.0).fisher_information == np.inf
    assert mk.from_density(lambda t: 1.0, 1.0, reach=1.0).fisher_information == np.inf
    # K = 15/16 (1 - t^2)^2: E[score^2] = 15 int t^2 = 10.
    biweight = mk.from_density(lambda t: (1 - t * t) ** 2, 1.0, reach=1.0)
    assert biweight.fisher_information == pytest.approx(10, rel=1e-8)


def test_it_smooths_as_the_kernel_that_it_is():
    class Wave:
        def value_and_gradient(self, points):
            return np.sin(points).sum(-1), np.cos(points)

    x = np.array([0.3, -1.0, 2.0])
    kernel = mk.from_density(quartic, 0.7)
    estimate = mk.Pathwise(kernel).estimate(Wave(), x, budget=mk.Evaluations(8192), rng=0)
    truth = np.cos(x) * kernel.characteristic_function(0.7)
    assert (np.abs(estimate.gradient - truth) < 4.5 * estimate.standard_error).all()
    assert (np.abs(estimate.gradient - np.cos(x)) > 4.5 * estimate.standard_error).all()


@pytest.mark.parametrize("kernel", [mk.Bump(0.5), mk.from_density(gaussian, 0.5)], ids=repr)
def test_estimates_agree_with_the_closed_form(kernel):
    x = np.array([0.3, -1.2, 2.0])
    estimate = mk.Pathwise(kernel).estimate(Cubic(), x, budget=mk.Evaluations(1 << 14), rng=0)
    truth = Cubic().smoothed_gradient(kernel, x, 0.5)
    # Three coordinates at 4.5 standard errors: 2e-5 in all.
    assert (np.abs(estimate.gradient - truth) < 4.5 * estimate.standard_error).all()


def test_it_can_be_pickled_where_its_formula_can():
    kernel = mk.from_density(quartic, mk.OfRange(0.2))
    kernel.inverse_cdf(0.3)
    again = pickle.loads(pickle.dumps(kernel))
    points = Normals(np.random.default_rng(0).standard_normal(100).astype(np.float32))
    np.testing.assert_array_equal(again.displacements(points), kernel.displacements(points))
    assert again.displacements(points).dtype == np.float32
    assert repr(again) == "from_density(quartic, scale=OfRange(fraction=0.2), reach=inf)"


BAD = {
    "negative": (
        lambda t: math.cos(t),
        3.0,
        ValueError,
        r"is -.* at t=.*; a density is finite and at least 0",
    ),
    "a parabola on the line": (lambda t: 1 - t * t, np.inf, ValueError, r"at least 0"),
    "a narrow dip below zero": (
        lambda t: 1 - 1.5 * math.exp(-(((abs(t) - 1 / 3) / 0.002) ** 2)),
        1.0,
        ValueError,
        r"at t=0\.33.*at least 0",
    ),
    "off centre": (lambda t: math.exp(-((t - 1) ** 2)), np.inf, ValueError, r"a kernel is even"),
    "odd": (lambda t: math.exp(t), 3.0, ValueError, r"a kernel is even"),
    "NaN": (lambda t: math.nan, np.inf, ValueError, r"is nan at t=0; a density is finite"),
    "infinite": (lambda t: math.inf if t == 0 else 1.0, 1.0, ValueError, r"is inf at t=0"),
    "zero": (lambda t: 0.0, np.inf, ValueError, r"zero wherever it was tried"),
    "constant on the line": (lambda t: 1.0, np.inf, ValueError, r"does not converge; make it fall"),
    "1 / t": (
        lambda t: 1 / (1 + abs(t)),
        np.inf,
        ValueError,
        r"falls as t\^-1: its integral does not converge",
    ),
    "tails beyond Cauchy's": (
        lambda t: (1 + abs(t)) ** -1.5,
        np.inf,
        ValueError,
        r"falls as t\^-1\.5: its inverse",
    ),
    "a pole": (lambda t: abs(t) ** -0.5, 1.0, ValueError, r"raises ZeroDivisionError at t=0"),
    "an overflow": (
        lambda t: 1 / math.cosh(t),
        np.inf,
        ValueError,
        r"raises OverflowError at t=7.*finite reach",
    ),
    "a jump inside": (
        lambda t: 2.0 if abs(t) < 0.3 else 1.0,
        1.0,
        ValueError,
        r"inverse CDF found .* is off by",
    ),
    "a string": ("exp(-t*t)", np.inf, TypeError, r"'exp\(-t\*t\)' is not a function"),
    "words": (lambda t: "much", 1.0, ValueError, r"fails at t=0: .*'much'"),
    "complex": (lambda t: 1j, np.inf, TypeError, r"does not turn the float 0 into a float"),
    "an array": (lambda t: np.ones(2), np.inf, TypeError, r"does not turn the float 0 into a float"),
    "no reach": (gaussian, 0.0, ValueError, r"reach=0\.0 must be positive"),
    "a negative reach": (gaussian, -1.0, ValueError, r"reach=-1\.0 must be positive"),
    "a reach that is NaN": (gaussian, math.nan, ValueError, r"reach=nan must be positive"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_no_density_is_refused_by_name(fault):
    formula, reach, kind, told = BAD[fault]
    with pytest.raises(kind, match=told):
        mk.from_density(formula, 1.0, reach=reach)


def test_a_scale_is_checked_too():
    with pytest.raises(ValueError, match="widths must be finite and at least 0"):
        mk.from_density(gaussian, -1.0)
