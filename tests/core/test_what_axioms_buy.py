"""What each axiom of the kernel gives to the smoothed gradient."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import quad

import mollikit as mk
from tests.core.closed_forms import Linear, PlaneWaves, waves

S = 0.4
MAKERS = {
    "Gaussian": mk.Gaussian,
    "Uniform": mk.Uniform,
    "Logistic": mk.Logistic,
    "Laplace": mk.Laplace,
    "Cauchy": mk.Cauchy,
    "HyperbolicSecant": mk.HyperbolicSecant,
    "StudentT": mk.StudentT,
    "Triangular": mk.Triangular,
    "Epanechnikov": mk.Epanechnikov,
    "Bump": mk.Bump,
    "a formula": lambda s: mk.from_density(lambda t: 1 / (1 + t**4), s),
}
every_kernel = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
X = np.array([0.3, -0.7, 1.2])


@dataclass(frozen=True)
class Sum:
    """a f + b g + c."""

    terms: tuple
    factors: tuple
    constant: float = 0.0

    def value_and_gradient(self, points):
        answers = [term.value_and_gradient(points) for term in self.terms]
        value, gradient = (
            sum(a * answer[part] for a, answer in zip(self.factors, answers, strict=True)) for part in (0, 1)
        )
        return value + self.constant, gradient


@dataclass(frozen=True)
class Scaled:
    """f(A x + b) for a diagonal A."""

    oracle: object
    a: np.ndarray
    b: np.ndarray

    def value_and_gradient(self, points):
        value, gradient = self.oracle.value_and_gradient(points * self.a + self.b)
        return value, gradient * self.a


@dataclass(frozen=True)
class Relu:
    """f(x) = sum max(x, 0)."""

    def value_and_gradient(self, points):
        return np.maximum(points, 0).sum(-1), (points > 0).astype(points.dtype)


def gradient(kernel, oracle, x=X, n=1024, rng=3, sampler=None):
    sampler = mk.Recentred(8) if sampler is None else sampler
    return mk.Pathwise(kernel, sampler).estimate(oracle, x, budget=mk.Evaluations(n), rng=rng)


@every_kernel
def test_an_integral_is_linear(make):
    f, g = waves(dimension=3, seed=1), waves(dimension=3, seed=2)
    both = gradient(make(S), Sum((f, g), (2.0, -3.0)))
    apart = 2.0 * gradient(make(S), f).gradient - 3.0 * gradient(make(S), g).gradient
    np.testing.assert_allclose(both.gradient, apart, rtol=1e-10, atol=1e-12)


@every_kernel
def test_unit_mass_keeps_constants(make):
    f = waves(dimension=3)
    plain, lifted = gradient(make(S), f), gradient(make(S), Sum((f,), (1.0,), 5.0))
    np.testing.assert_array_equal(lifted.gradient, plain.gradient)
    np.testing.assert_allclose(lifted.output.value, plain.output.value + 5, rtol=1e-12)


@every_kernel
def test_symmetry_keeps_linear_functions(make):
    weights = np.array([1.0, -2.0, 0.5])
    plain = gradient(make(S), Linear(weights), sampler=mk.Antithetic())
    np.testing.assert_allclose(plain.gradient, weights, rtol=1e-14)
    # Of the value the kernel's evenness is what is needed: the points of a pair cancel to rounding of each.
    if np.isfinite(make(S).variance):
        np.testing.assert_allclose(plain.output.value, weights @ X, rtol=1e-10)


@every_kernel
def test_symmetry_makes_the_gradient_of_an_even_function_zero_at_its_middle(make):
    estimate = gradient(make(S), PlaneWaves(np.eye(3)), x=np.zeros(3), sampler=mk.Antithetic())
    np.testing.assert_allclose(estimate.gradient, 0, atol=1e-14)


@every_kernel
@pytest.mark.parametrize("sampler", [mk.Independent(), mk.Recentred(8), mk.LatinHypercube(16)], ids=repr)
def test_smoothing_commutes_with_diagonal_affine_maps(make, sampler):
    f, a, b = waves(dimension=3), np.array([2.0, 0.5, 3.0]), np.array([0.1, -0.2, 0.3])
    # grad (f o A)_K at scale s is A (grad f_K') o A, with K' of scale A s: with the same points too.
    inside = gradient(make(S), Scaled(f, a, b), sampler=sampler)
    outside = gradient(make(S * a), f, x=a * X + b, sampler=sampler)
    np.testing.assert_allclose(inside.gradient, a * outside.gradient, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(inside.standard_error, a * outside.standard_error, rtol=1e-9, atol=1e-11)
    unscaled = gradient(make(S), f, x=a * X + b, sampler=sampler)
    assert np.abs(inside.gradient - a * unscaled.gradient).max() > 1e-3


@every_kernel
def test_concentration_gives_the_raw_gradient_as_the_scale_goes_to_zero(make):
    f = waves(dimension=3)
    raw = f.value_and_gradient(X[None])[1][0]

    def distance(s):
        kernel = make(s)
        return np.linalg.norm(f.smoothed_gradient(kernel, X, kernel.widths(X)) - raw)

    distances = [distance(s) for s in (1e-1, 1e-2, 1e-3)]
    # Of order s^2 where the variance is finite, and of order s for the Cauchy.
    order = 2 if np.isfinite(make(S).variance) else 1
    assert np.log10(distances[0] / distances[1]) == pytest.approx(order, abs=0.15)
    assert np.log10(distances[1] / distances[2]) == pytest.approx(order, abs=0.15)
    estimate = gradient(make(1e-3), f)
    truth = f.smoothed_gradient(make(1e-3), X, np.full(3, 1e-3))
    assert (np.abs(estimate.gradient - truth) < 5 * estimate.standard_error + 1e-12).all()


@every_kernel
def test_positivity_and_unit_mass_bound_the_gradient_by_the_lipschitz_constant(make):
    f = waves(dimension=3)
    points = np.random.default_rng(0).uniform(-6, 6, (4000, 3))
    bound = np.linalg.norm(f.frequencies, axis=1).sum()  # of |sin| <= 1: no point has a steeper gradient
    assert np.linalg.norm(f.value_and_gradient(points)[1], axis=1).max() <= bound
    for x in points[:8]:
        assert np.linalg.norm(f.smoothed_gradient(make(S), x, np.full(3, S))) <= bound
    for seed in range(3):
        assert np.linalg.norm(gradient(make(S), f, n=64, rng=seed).gradient) <= bound
    # And of the maximum of the gradient: smoothing steepens nothing.
    steps = gradient(make(S), Relu(), x=np.array([-3.0, 0.0, 3.0]), n=64)
    assert ((steps.gradient >= 0) & (steps.gradient <= 1)).all()


@every_kernel
def test_a_kink_becomes_the_integral_of_the_cdf(make):
    kernel, x = make(S), np.array([-1.1, -0.31, 0.0, 0.2, 0.77])
    estimate = gradient(kernel, Relu(), x=x, n=1 << 14)
    # d/dx E[max(x + s t, 0)] = P(t > -x / s) = F(x / s); and f_K its integral.
    slope = kernel.cdf(x / S)
    inside = (slope > 0) & (slope < 1)
    error = estimate.standard_error
    assert (np.abs(estimate.gradient - slope)[inside] < 5 * error[inside]).all()
    np.testing.assert_array_equal(estimate.gradient[~inside], slope[~inside])
    if np.isfinite(kernel.variance):
        low = max(-kernel.support[1], -2000.0)
        ends = [-np.inf if np.isinf(kernel.support[1]) else low, *sorted([-1.0, *(x / S)])]
        ends = [end for end in ends if end >= low or np.isinf(end)]
        parts = {
            b: quad(lambda t: float(kernel.cdf(t)), a, b, limit=200)[0] for a, b in itertools.pairwise(ends)
        }
        value = S * sum(sum(p for b, p in parts.items() if b <= end) for end in x / S)
        assert abs(estimate.output.value - value) < 5 * estimate.output.standard_error


@every_kernel
def test_the_smoothed_kink_has_two_derivatives_more_than_the_kernel(make):
    # The smoothed ReLU's second derivative is K itself: C^k makes it C^(k + 2).
    kernel, h = make(1.0), 1e-4
    for t in (-0.6, -0.2, 0.3, 0.9):
        slope = (kernel.cdf(t + h) - kernel.cdf(t - h)) / (2 * h)
        assert float(slope) == pytest.approx(float(kernel.density(t)), rel=1e-5)


@every_kernel
def test_smoothness_damps_high_frequencies(make):
    """|phi| falls as omega^-(k + 2) for C^k with a kink in the k-th derivative, ever faster for smooth K."""
    kernel = make(1.0)

    def envelope(near):
        return np.abs(kernel.characteristic_function(np.linspace(near, near + 2 * np.pi, 65))).max()

    def power(near):
        return np.log(envelope(near) / envelope(5 * near)) / np.log(5)

    if kernel.smoothness in (-1, 0):
        assert power(30) == pytest.approx(kernel.smoothness + 2, abs=0.25)
        assert power(90) == pytest.approx(kernel.smoothness + 2, abs=0.1)
    else:
        # The bump's falls as exp(-sqrt(omega)), so that it is not below 1e-12 at once.
        assert envelope(150) < 1e-12 or power(60) > power(12) + 1.5 > 3


@pytest.mark.parametrize(("by", "share"), [("std", 0.2), ("iqr", 0.5)])
def test_matched_kernels_smooth_alike(by, share):
    """Of slow waves: the standard deviation decides the leading term, the quartiles only most of it."""
    f, compared = (
        PlaneWaves(0.5 * np.eye(3)),
        ("Gaussian", "Uniform", "Logistic", "Laplace", "Triangular", "Bump"),
    )

    def spread(kernels):
        norms = [np.linalg.norm(f.smoothed_gradient(k, X, k.widths(X))) for k in kernels]
        return np.ptp(norms) / np.mean(norms)

    plain, matched = (
        [MAKERS[name](1.0) for name in compared],
        [MAKERS[name](1.0).matched(by) for name in compared],
    )
    assert spread(matched) < share * spread(plain)


def test_an_uneven_law_does_not_keep_linear_functions():
    """The control of symmetry: the truncated kernel is not even, and moves the value of a linear function."""
    weights = np.array([1.0, -2.0, 0.5])
    law = mk.Truncated(mk.Gaussian(S), low=X - 0.1)
    estimate = gradient(law, Linear(weights), sampler=mk.Antithetic())
    np.testing.assert_allclose(estimate.gradient, weights, rtol=1e-14)
    assert abs(estimate.output.value - weights @ X) > 10 * estimate.output.standard_error
