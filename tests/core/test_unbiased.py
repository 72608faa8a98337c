"""Estimates agree with closed forms, in units of their own standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.pointsets import Normals, Uniforms
from mollikit.testing import rounding
from tests.core.closed_forms import KERNELS, SAMPLERS, Cubic, Linear, PlaneWaves, Quadratic, waves
from tests.core.test_samplers import LastWithoutNoise, WrongVariance

DIMENSION = 6
FALSE_ALARM = 1e-4  # of one case, by Bonferroni over its coordinates; there are some 100 cases

rng = np.random.default_rng(11)
X = rng.standard_normal(DIMENSION)
WIDTHS = rng.uniform(0.2, 1.5, DIMENSION)
A = rng.standard_normal((DIMENSION, DIMENSION))
ONE_WAVE = PlaneWaves(rng.uniform(0.3, 0.9, (1, DIMENSION)))
FORMS = {"wave": ONE_WAVE, "waves": waves(), "quadratic": Quadratic(A + A.T), "cubic": Cubic()}

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def assert_agrees(value, error, degrees_of_freedom, truth):
    """|z| below the quantile of Student's t, but for rounding."""
    bound = stats.t.isf(FALSE_ALARM / 2 / truth.size, degrees_of_freedom)
    slack = rounding(float) * np.abs(truth).max()
    worst = (np.abs(value - truth) / (bound * error + slack)).max()
    assert worst < 1, f"{worst * bound:.1f} standard errors from the truth"


def assert_unbiased(sampler, kernel, form, n=1 << 14, meant=WIDTHS):
    """The gradient, smoothed with the kernel given, is that of the kernel and widths that are meant."""
    estimate = mk.Pathwise(kernel, sampler).estimate(form, X, budget=mk.Evaluations(n), rng=5)
    truth = np.broadcast_to(form.smoothed_gradient(kernel, X, meant), X.shape)
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)
    return estimate


@every_sampler
@every_kernel
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_gradients_agree_with_the_closed_form(sampler, kernel, form):
    assert_unbiased(sampler, kernel(WIDTHS), form)


@every_sampler
@every_kernel
def test_the_smoothed_value_agrees_with_the_closed_form(sampler, kernel):
    estimate = mk.Pathwise(kernel(WIDTHS), sampler).estimate(
        waves(), X, budget=mk.Evaluations(1 << 15), rng=6
    )
    truth = np.asarray(waves().smoothed_value(kernel(WIDTHS), X, WIDTHS))
    output = estimate.output
    assert_agrees(output.value, output.standard_error, output.degrees_of_freedom, truth)


@every_sampler
@every_kernel
def test_a_linear_function_is_exact(sampler, kernel):
    form = Linear(A[0])
    estimate = mk.Pathwise(kernel(WIDTHS), sampler).estimate(form, X, budget=mk.Evaluations(512), rng=0)
    np.testing.assert_allclose(estimate.gradient, A[0], rtol=rounding(float))
    assert estimate.relative_error < rounding(float)


@pytest.mark.parametrize(
    ("sampler", "kernel"),
    [(mk.Recentred(), mk.Gaussian), *((mk.Antithetic(), kernel) for kernel in KERNELS)],
)
def test_a_quadratic_function_is_exact_where_the_linear_part_cancels(sampler, kernel):
    form = FORMS["quadratic"]
    estimate = mk.Pathwise(kernel(WIDTHS), sampler).estimate(form, X, budget=mk.Evaluations(256), rng=0)
    np.testing.assert_allclose(estimate.gradient, (A + A.T) @ X, rtol=rounding(float))
    assert estimate.relative_error < rounding(float)


@pytest.mark.parametrize("points", [2, 4, 8])
def test_recentring_keeps_the_stated_share_of_a_quadratic_components_variance(points):
    # The law in Recentred's docstring for k = 2, on the cubic's gradient at 0, which is quadratic.
    def squared_error(sampler):
        smooth = mk.Pathwise(mk.Gaussian(1.0), sampler)
        estimate = smooth.estimate(Cubic(), np.zeros(400), budget=mk.Evaluations(1 << 12), rng=3)
        return (estimate.standard_error**2).mean()

    factor = 1 + (points - 1) * (-1 / (points - 1)) ** 2
    measured = squared_error(mk.Recentred(points)) / squared_error(mk.Independent())
    # Variances of 400 coordinates, each from n groups of kurtosis at most 15: sqrt(14 / (400 n)) relative.
    standard_error = factor * np.sqrt(14 / 400 * (points + 1) / (1 << 12))
    assert abs(measured - factor) < 4 * standard_error


@pytest.mark.parametrize("sampler", [WrongVariance(), LastWithoutNoise()], ids=repr)
@every_kernel
def test_a_sampler_of_another_law_fails(sampler, kernel):
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_unbiased(sampler, kernel(WIDTHS), FORMS["cubic"])


@every_sampler
@every_kernel
def test_a_variance_given_for_a_width_fails(sampler, kernel):
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_unbiased(sampler, kernel(WIDTHS**2), FORMS["cubic"])


@every_sampler
@every_kernel
def test_a_forgotten_scale_fails(sampler, kernel):
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_unbiased(sampler, kernel(1.0), FORMS["waves"])


@every_sampler
def test_a_gradient_off_by_a_factor_fails(sampler):
    @dataclass(frozen=True)
    class Doubled(Cubic):
        def value_and_gradient(self, points):
            value, gradient = super().value_and_gradient(points)
            return value, 1.05 * gradient

    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_unbiased(sampler, mk.Gaussian(WIDTHS), Doubled())


@every_sampler
def test_the_standard_error_is_the_spread_over_seeds(sampler):
    smooth, budget = mk.Pathwise(mk.Gaussian(WIDTHS), sampler), mk.Evaluations(512)
    runs = [smooth.estimate(waves(), X, budget=budget, rng=seed) for seed in range(300)]
    spread = np.var([run.gradient for run in runs], axis=0, ddof=1)
    said = np.mean([run.standard_error**2 for run in runs], axis=0)
    # The ratio of two variances: chi-square with 299 degrees of freedom above, many more below; 4.5 sigma.
    assert np.abs(spread / said - 1).max() < 4.5 * np.sqrt(2 / 299)
    naive = said * runs[0].n_groups / runs[0].n_evaluations  # M2 over groups, n counted in points
    if runs[0].group_size > 1:
        assert np.abs(spread / naive - 1).min() > 4.5 * np.sqrt(2 / 299)


@pytest.mark.parametrize("view", [Normals, Uniforms])
def test_several_inputs_with_a_kernel_each(view):
    # Laplace asks for uniforms and Gaussian for normals; both get what one point set gives.
    first = mk.Gaussian(0.7) if view is Normals else mk.Logistic(0.7)
    kernels = {"a": first, "b": mk.Laplace(0.4)}
    form = waves(2, 5)

    class Split:
        def value_and_gradient(self, points):
            together = np.concatenate([points["a"].reshape(-1, 2), points["b"].reshape(-1, 3)], axis=1)
            value, gradient = form.value_and_gradient(together)
            return value, {"a": gradient[:, :2].reshape(-1, 2, 1), "b": gradient[:, 2:]}

    x = {"a": X[:2].reshape(2, 1), "b": X[2:5]}
    estimate = mk.Pathwise(kernels, mk.Independent()).estimate(
        Split(), x, budget=mk.Evaluations(1 << 15), rng=2
    )
    w = form.frequencies
    damping = first.characteristic_function(0.7 * w[:, :2]).prod(1)
    damping = damping * kernels["b"].characteristic_function(0.4 * w[:, 2:]).prod(1)
    truth = -(np.sin(w @ X[:5]) * damping) @ w
    for name, part in (("a", truth[:2].reshape(2, 1)), ("b", truth[2:])):
        assert estimate.gradient[name].shape == x[name].shape
        assert_agrees(
            estimate.gradient[name], estimate.standard_error[name], estimate.degrees_of_freedom, part
        )
