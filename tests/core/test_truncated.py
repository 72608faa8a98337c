from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import mollikit as mk
from mollikit.pointsets import Normals, Uniforms
from tests.core.closed_forms import Linear, Recording

KERNELS = (
    mk.Gaussian(0.5),
    mk.Laplace(0.3),
    mk.Cauchy(0.2),
    mk.Uniform(0.8),
    mk.Bump(0.9),
    mk.Epanechnikov(0.7),
)
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(4), mk.LatinHypercube(8), mk.Sobol(8))
LOW, HIGH = 0.0, 1.0
X = np.array([0.05, 0.5, 0.9])


class Sines:
    """f(x) = sum sin(3 x)."""

    def value_and_gradient(self, points):
        return np.sin(3 * points).sum(-1), 3 * np.cos(3 * points)


def truncated_mean(kernel, x, function, low=LOW, high=HIGH):
    """Of a function of one coordinate, by quadrature over the domain."""
    scale = float(kernel.widths(np.array([x]))[0])
    a, b = (max(low, x + scale * kernel.support[0]), min(high, x + scale * kernel.support[1]))

    def density(y):
        return float(kernel.density((y - x) / scale))

    mass, mean = (
        sum(quad(f, *ends)[0] for ends in ((a, x), (x, b)))
        for f in (density, lambda y: density(y) * function(y))
    )
    return mean / mass


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("view", [Normals, Uniforms])
def test_each_coordinate_has_the_kernels_law_between_the_bounds(kernel, view):
    draws = mk.Truncated(kernel, LOW, HIGH).at(X)
    rng = np.random.default_rng(5)
    values = rng.standard_normal((20_000, 3)) if view is Normals else rng.random((20_000, 3))
    t, widths = draws.displacements(view(values)), kernel.widths(X)
    for j, (x, s) in enumerate(zip(X, widths, strict=True)):
        below, above = kernel.cdf((LOW - x) / s), kernel.cdf((HIGH - x) / s)

        def cdf(y, below=below, above=above):
            return (kernel.cdf(y) - below) / (above - below)

        assert stats.kstest(t[:, j], cdf).pvalue > 1e-4
    # The control: at the first coordinate the kernel itself is another law.
    if below > 0:
        assert stats.kstest(kernel.displacements(view(values[:, 0])), cdf).pvalue < 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_estimate_is_the_mean_of_the_gradient_over_the_domain(kernel, sampler):
    law = mk.Truncated(kernel, LOW, HIGH)
    estimate = mk.Pathwise(law, sampler).estimate(Sines(), X, budget=mk.Evaluations(4096), rng=1)
    truth = np.array([truncated_mean(kernel, x, lambda y: 3 * np.cos(3 * y)) for x in X])
    # 90 coordinates at 5 standard errors: 5e-5 in all, for normal errors.
    assert (np.abs(estimate.gradient - truth) < 5 * estimate.standard_error).all()


def test_it_is_another_estimand_than_the_kernels():
    kernel = mk.Gaussian(0.5)
    asked = {"budget": mk.Evaluations(1 << 16), "rng": 1}
    cut = mk.Pathwise(mk.Truncated(kernel, LOW, HIGH)).estimate(Sines(), X, **asked)
    whole = mk.Pathwise(kernel).estimate(Sines(), X, **asked)
    of_kernel = 3 * np.cos(3 * X) * np.exp(-(1.5**2) / 2)
    assert (np.abs(whole.gradient - of_kernel) < 4.5 * whole.standard_error).all()
    assert (np.abs(cut.gradient - of_kernel) > 4.5 * cut.standard_error).all()
    assert cut.provenance["estimand"] == "mean of the gradient under a truncated kernel"
    assert whole.provenance["estimand"] == "gradient of the smoothed function"
    assert cut.provenance["kernels"] == "Truncated(Gaussian(0.5), low=0, high=1)"
    json.dumps(cut.provenance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("low", [0.0, -1 / 3])
def test_no_point_leaves_the_domain(dtype, low):
    low, high = dtype(low), dtype(0.7)
    x = np.array([low, high, (low + high) / 2, low + np.finfo(dtype).eps], dtype)
    oracle = Recording(Sines())
    law = mk.Truncated(mk.Cauchy(3.0), low, high)
    mk.Pathwise(law, mk.Recentred(8)).estimate(oracle, x, budget=mk.Evaluations(2048), rng=0)
    points = np.concatenate([batch for batch, _ in oracle.batches])
    assert points.dtype == dtype
    assert (points >= low).all()
    assert (points <= high).all()
    assert np.ptp(points, axis=0).min() > 0.9 * (high - low)


def test_one_bound_alone_makes_half_a_kernel():
    draws = mk.Truncated(mk.Gaussian(1.0), low=0).at(np.zeros(1))
    t = draws.displacements(Normals(np.random.default_rng(0).standard_normal((20_000, 1)))).ravel()
    assert stats.kstest(t, stats.halfnorm.cdf).pvalue > 1e-4
    extremes = draws.displacements(Normals(np.array([[-38.0], [38.0]])))
    assert np.isfinite(extremes).all()


def test_bounds_are_of_each_coordinate_and_held_coordinates_stay():
    x = np.array([0.5, 2.0, -1.0])
    law = mk.Truncated(mk.Gaussian([1.0, 0.0, 2.0]), low=[0.0, 2.0, -np.inf], high=[1.0, 2.5, 0.0])
    oracle = Recording(Sines())
    mk.Pathwise(law).estimate(oracle, x, budget=mk.Evaluations(256), rng=0)
    points = np.concatenate([batch for batch, _ in oracle.batches])
    assert ((points >= [0, 2, -np.inf]) & (points <= [1, 2, 0])).all()
    assert (points[:, 1] == 2).all()


def test_wide_bounds_change_nothing_but_rounding():
    x = np.array([0.2, -0.4])
    z = Normals(np.random.default_rng(0).standard_normal((1000, 2)))
    whole = mk.Gaussian(0.1)
    np.testing.assert_allclose(
        mk.Truncated(whole, -1e6, 1e6).at(x).displacements(z), whole.displacements(z), rtol=1e-9, atol=1e-12
    )


def test_a_linear_function_keeps_its_gradient():
    weights = np.array([1.0, -2.0, 0.5])
    law = mk.Truncated(mk.Laplace(2.0), LOW, HIGH)
    estimate = mk.Pathwise(law).estimate(Linear(weights), X, budget=mk.Evaluations(64), rng=0)
    np.testing.assert_allclose(estimate.gradient, weights, rtol=1e-12)


def test_one_of_several_inputs_can_be_truncated():
    class Both:
        def value_and_gradient(self, points):
            return points["a"].sum(-1) * 0, {k: np.cos(v) for k, v in points.items()}

    laws = {"a": mk.Truncated(mk.Gaussian(1.0), 0, 1), "b": mk.Gaussian(1.0)}
    inputs = {"a": np.array([0.3]), "b": np.array([0.3, 0.4])}
    estimate = mk.Pathwise(laws).estimate(Both(), inputs, budget=mk.Evaluations(8192), rng=0)
    truth = {"a": truncated_mean(laws["b"], 0.3, np.cos), "b": np.cos(inputs["b"]) * np.exp(-0.5)}
    for name, value in truth.items():
        assert (np.abs(estimate.gradient[name] - value) < 4.5 * estimate.standard_error[name]).all()
    assert estimate.provenance["estimand"] == (
        "mean of the gradient under a truncated kernel; gradient of the smoothed function"
    )


def test_a_run_is_not_resumed_with_other_bounds():
    asked = {"budget": mk.Evaluations(64), "rng": 0}
    low = np.zeros(2000)
    x = np.full(2000, 0.5)
    first = mk.Pathwise(mk.Truncated(mk.Gaussian(0.1), low, 1)).estimate(Sines(), x, **asked)
    low[1000] = -1
    with pytest.raises(ValueError, match="estimate of something else"):
        mk.Pathwise(mk.Truncated(mk.Gaussian(0.1), low, 1)).estimate(Sines(), x, **asked, resume=first)


def test_it_can_be_pickled():
    law = mk.Truncated(mk.Bump(0.5), 0, 1)
    z = Normals(np.random.default_rng(0).standard_normal((10, 3)))
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(law.at(X))).displacements(z), law.at(X).displacements(z)
    )


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: mk.Truncated(mk.Gaussian(1.0), 1, 0), ValueError, "low=1 must lie below high=0"),
        (lambda: mk.Truncated(mk.Gaussian(1.0), np.nan, 0), ValueError, "low=nan must lie below"),
        (lambda: mk.Truncated(0.3, 0, 1), TypeError, "0.3 is not a kernel"),
        (lambda: mk.Truncated(mk.Gaussian(1.0), 0.4, 1).at(X), ValueError, r"1 coordinates .* index \(0,\)"),
        (lambda: mk.Truncated(mk.Gaussian(1.0), [0, 0], 1).at(X), ValueError, "do not broadcast"),
        (lambda: mk.Truncated(mk.Gaussian(1.0), np.zeros((2, 3)), 1).at(X), ValueError, "do not broadcast"),
        (
            # Two humps at +-5 and nothing between them that a double can hold.
            lambda: mk.Truncated(
                mk.from_density(lambda t: np.exp(-100 * (abs(t) - 5) ** 2), 1.0), 0.45, 0.55
            ).at(np.full(3, 0.5)),
            ValueError,
            "has no mass between its bounds at 3 coordinates",
        ),
    ],
)
def test_bad_bounds_are_refused_by_name(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


def test_what_the_estimators_refuse_names_the_input():
    law = mk.Truncated(mk.Gaussian(1.0), 0, 1)
    with pytest.raises(ValueError, match=r"the input: 1 coordinates of the input lie outside Truncated"):
        mk.Pathwise(law).estimate(Sines(), np.array([0.5, 1.5]), budget=mk.Evaluations(64))


@pytest.mark.parametrize("estimator", [mk.ScoreFunction, mk.Secant])
def test_estimators_from_values_refuse_it(estimator):
    class Values:
        def value(self, points):
            raise AssertionError("the model is not to be called")

    with pytest.raises(
        TypeError, match="which this estimator needs: give the kernel itself, or use Pathwise"
    ):
        estimator(mk.Truncated(mk.Gaussian(1.0), 0, 1)).estimate(
            Values(), X, budget=mk.Evaluations(512), rng=0
        )
