"""Kernels from a formula, and the bump, which is one of them."""

from __future__ import annotations

import pickle
from math import exp, inf, nan, pi

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import mollikit as mk
from mollikit.pointsets import Normals
from tests.core.closed_forms import Cubic

U = np.concatenate([np.geomspace(1e-9, 1e-2, 15), np.linspace(0.02, 0.98, 25)])


def bell(t):
    return exp(-t * t / 2)


def quartic(t):
    return 1 / (1 + t**4)


CASES = {
    "a Gaussian, unnormalised": (mk.from_density(bell, 1.0), mk.Gaussian(1.0)),
    "a narrow Gaussian": (mk.from_density(lambda t: 7 * exp(-t * t * 5e11), 1.0), None),
    "a logistic": (mk.from_density(lambda t: exp(-abs(t)) / (1 + exp(-abs(t))) ** 2, 1.0), mk.Logistic(1.0)),
    "a parabola": (mk.from_density(lambda t: 1 - t * t, 1.0, reach=1), mk.Epanechnikov(1.0)),
    "a box": (mk.from_density(lambda t: 3.0, 1.0, reach=1), mk.Uniform(1.0)),
    "a Cauchy": (mk.from_density(lambda t: 1 / (1 + t * t), 1.0), mk.Cauchy(1.0)),
}
known = pytest.mark.parametrize(
    ("made", "built_in"), [c for c in CASES.values() if c[1]], ids=[k for k, c in CASES.items() if c[1]]
)
every = pytest.mark.parametrize(
    "kernel", [c[0] for c in CASES.values()] + [mk.Bump(1.0)], ids=[*CASES, "bump"]
)


@known
def test_a_formula_of_a_known_kernel_gives_that_kernel(made, built_in):
    t, omega = np.array([-0.9, -0.31, 0.0, 0.2, 0.77]), np.array([0.0, 0.3, 1.0, 2.5])
    np.testing.assert_allclose(made.density(t), built_in.density(t), rtol=1e-8)
    # Asked of the inversion is 1e-12 in u, whatever that means in t.
    np.testing.assert_allclose(built_in.cdf(made.inverse_cdf(U)), U, rtol=0, atol=1e-11)
    np.testing.assert_allclose(made.cdf(t), built_in.cdf(t), atol=1e-9)
    np.testing.assert_allclose(made.score(t), built_in.score(t), atol=1e-5)
    np.testing.assert_allclose(
        made.characteristic_function(omega), built_in.characteristic_function(omega), atol=1e-7
    )
    np.testing.assert_allclose(made.variance, built_in.variance, rtol=1e-7)
    np.testing.assert_allclose(made.fisher_information, built_in.fisher_information, rtol=1e-4)


@every
def test_the_inverse_cdf_is_as_good_as_is_reported(kernel):
    np.testing.assert_allclose(kernel.cdf(kernel.inverse_cdf(U)), U, atol=1e-9)
    np.testing.assert_array_equal(
        kernel.inverse_cdf(0.5 + np.ldexp(1, -9)), -kernel.inverse_cdf(0.5 - np.ldexp(1, -9))
    )


def test_the_error_that_is_reported_is_small_and_is_measured():
    kernel = mk.from_density(quartic, 0.1)
    assert 0 < kernel.u_error < 1e-10
    np.testing.assert_allclose(kernel.mass, pi / np.sqrt(2), rtol=1e-9)


def test_the_bump_is_normalised_smooth_and_has_the_score_of_its_density():
    bump = mk.Bump(1.0)
    np.testing.assert_allclose(quad(lambda t: float(bump.density(t)), -1, 1)[0], 1, rtol=1e-9)
    t, h = np.linspace(-0.9, 0.9, 13), 1e-6
    slope = (np.log(bump.density(t + h)) - np.log(bump.density(t - h))) / (2 * h)
    np.testing.assert_allclose(bump.score(t), slope, atol=1e-6)
    variance = quad(lambda t: t * t * float(bump.density(t)), -1, 1)[0]
    np.testing.assert_allclose(bump.variance, variance, rtol=1e-8)
    assert (bump.density([-1.0, 1.0, 2.0]) == 0).all()


@pytest.mark.parametrize("kernel", [mk.Bump(1.0), mk.from_density(quartic, 1.0)], ids=repr)
def test_points_have_the_law_in_both_precisions(kernel):
    z = np.random.default_rng(0).standard_normal(20_000)
    steps = kernel.displacements(Normals(z))
    assert stats.kstest(steps, kernel.cdf).pvalue > 1e-3
    single = kernel.displacements(Normals(z.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, steps, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [mk.Bump, lambda s: mk.from_density(bell, s)], ids=["bump", "formula"])
def test_estimates_agree_with_the_closed_form(kernel):
    x = np.array([0.3, -1.2, 2.0])
    estimate = mk.Pathwise(kernel(0.5)).estimate(Cubic(), x, budget=mk.Evaluations(1 << 14), rng=0)
    truth = 3 * (x**2 + 0.25 * kernel(0.5).variance)
    # Three coordinates at 4.5 standard errors: 2e-5 in all.
    assert (np.abs(estimate.gradient - truth) < 4.5 * estimate.standard_error).all()


def test_a_kernel_of_a_function_that_has_a_name_crosses_to_another_process():
    kernel = mk.from_density(bell, 0.3)
    kernel.inverse_cdf(0.3)
    crossed = pickle.loads(pickle.dumps(kernel))
    assert crossed.inverse_cdf(0.3) == kernel.inverse_cdf(0.3)
    assert pickle.loads(pickle.dumps(mk.Bump(0.1))).variance == mk.Bump(0.1).variance


@pytest.mark.parametrize(
    ("formula", "reach", "error", "message"),
    [
        (lambda t: 1 - t * t, inf, ValueError, "a density is finite and at least 0"),
        (lambda t: exp(-((t - 1) ** 2)), inf, ValueError, "a kernel is even"),
        (lambda t: 1.0, inf, ValueError, "does not converge"),
        (lambda t: 1 / (1 + abs(t)), inf, ValueError, "does not converge"),
        (lambda t: 0.0, 1.0, ValueError, "a positive mass"),
        (lambda t: nan, 1.0, ValueError, "nan at t=0"),
        (lambda t: 1 / abs(t), 1.0, ValueError, "ZeroDivisionError at t=0"),
        (lambda t: "much", 1.0, ValueError, "much"),
        ("exp(-t*t)", inf, TypeError, "is not a function"),
        (bell, -1.0, ValueError, "reach=-1.0 must be positive"),
    ],
)
def test_what_is_no_even_density_is_refused(formula, reach, error, message):
    with pytest.raises(error, match=message):
        mk.from_density(formula, 0.1, reach=reach)
