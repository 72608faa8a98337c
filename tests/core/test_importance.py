from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

import mollikit as mk
from mollikit.pointsets import Normals
from tests.core.closed_forms import waves

X = np.array([0.3, -0.8, 1.1])
PAIRS = [
    (mk.Gaussian(0.5), mk.Gaussian(0.6)),
    (mk.Gaussian(0.5), mk.Logistic(0.4)),
    (mk.Uniform(0.5), mk.Triangular(0.9)),
    (mk.Triangular(0.5), mk.Uniform(0.5)),
    (mk.Laplace(0.5), mk.StudentT(0.7, nu=3)),
    (mk.Bump(0.5), mk.Uniform(0.5)),
    (mk.Gaussian([0.5, 0.4, 0.2]), mk.Laplace([0.4, 0.4, 0.2])),
]
SAMPLERS = (mk.Independent(), mk.Recentred(8), mk.LatinHypercube(16), mk.Sobol(8))
pairs = pytest.mark.parametrize(("kernel", "proposal"), PAIRS, ids=repr)


@pairs
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_estimand_is_that_of_the_kernel(kernel, proposal, sampler):
    oracle = waves(dimension=3)
    law = mk.Importance(kernel, proposal)
    estimate = mk.Pathwise(law, sampler).estimate(oracle, X, budget=mk.Evaluations(4096), rng=2)
    widths = kernel.widths(X)
    truth = oracle.smoothed_gradient(kernel, X, widths)
    # 112 numbers at 5 standard errors: 6e-5 in all, for normal errors.
    assert (np.abs(estimate.gradient - truth) < 5 * estimate.standard_error).all()
    value = oracle.smoothed_value(kernel, X, widths)
    assert abs(estimate.output.value - value) < 5 * estimate.output.standard_error


def test_without_its_weights_it_would_be_another():
    kernel, proposal, oracle = mk.Gaussian(0.5), mk.Gaussian(0.8), waves(dimension=3)
    law = mk.Importance(kernel, proposal)
    estimate = mk.Pathwise(law).estimate(oracle, X, budget=mk.Evaluations(8192), rng=2)
    of_proposal = oracle.smoothed_gradient(proposal, X, proposal.widths(X))
    assert (np.abs(estimate.gradient - of_proposal) > 5 * estimate.standard_error).any()


@pairs
def test_the_effective_share_is_that_of_the_weights(kernel, proposal):
    draws = mk.Importance(kernel, proposal).at(X)
    wanted, drawn = kernel.widths(X), proposal.widths(X)
    squares = []
    for s, p in zip(wanted, drawn, strict=True):
        end = min(s * kernel.support[1], 15 * p)

        def integrand(t, s=s, p=p):
            return (kernel.density(t / s) / s) ** 2 / (proposal.density(t / p) / p)

        squares.append(2 * quad(integrand, 0, end * (1 - 1e-12), epsabs=1e-12, limit=200)[0])
    assert draws.effective_share == pytest.approx(1 / np.prod(squares), rel=1e-6)
    weights = draws.weights(
        draws.displacements(Normals(np.random.default_rng(0).standard_normal((100_000, 3))))
    )
    error = weights.std() / np.sqrt(weights.size)
    assert abs(weights.mean() - 1) < 4 * error
    kish = weights.sum() ** 2 / (weights**2).sum() / weights.size
    assert kish == pytest.approx(draws.effective_share, rel=0.1)


def test_the_share_is_recorded_and_one_without_weights():
    asked = {"budget": mk.Evaluations(64), "rng": 0}
    law = mk.Importance(mk.Gaussian(0.5), mk.Gaussian(0.6))
    estimate = mk.Pathwise(law).estimate(waves(dimension=3), X, **asked)
    # In closed form, r = 0.6 / 0.5: E[w^2] = r^2 / sqrt(2 r^2 - 1) in each coordinate.
    assert estimate.provenance["effective_share"] == pytest.approx(
        (np.sqrt(2 * 1.44 - 1) / 1.44) ** 3, rel=1e-9
    )
    plain = mk.Pathwise(mk.Gaussian(0.5)).estimate(waves(dimension=3), X, **asked)
    assert plain.provenance["effective_share"] == 1
    assert plain.provenance["kernels"] == "Gaussian(0.5)"


def test_a_proposal_that_is_the_kernel_has_weights_of_one():
    draws = mk.Importance(mk.Gaussian(0.5), mk.Gaussian(0.5)).at(X)
    t = draws.displacements(Normals(np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)))
    np.testing.assert_allclose(draws.weights(t), 1, rtol=1e-12)
    assert draws.effective_share == pytest.approx(1, rel=1e-9)


def test_held_coordinates_carry_no_weight():
    law = mk.Importance(mk.Gaussian([0.5, 0.0, 0.5]), mk.Gaussian([0.6, 0.0, 0.6]))
    oracle = waves(dimension=3)
    estimate = mk.Pathwise(law).estimate(oracle, X, budget=mk.Evaluations(4096), rng=0)
    truth = oracle.smoothed_gradient(law.kernel, X, law.kernel.widths(X))
    assert (np.abs(estimate.gradient - truth) < 5 * estimate.standard_error).all()


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (
            lambda: mk.Importance(mk.Gaussian(0.5), mk.Gaussian(0.6)).at(np.zeros(784)),
            ValueError,
            r"the weights collapse: in 784 coordinates .* of the points count, less than least_share=0\.1",
        ),
        (
            lambda: mk.Importance(mk.Gaussian(0.5), mk.Uniform(5.0)).at(X),
            ValueError,
            "the kernel at inf; widen",
        ),
        (lambda: mk.Importance(mk.Uniform(0.5), mk.Uniform(0.4)).at(X), ValueError, r"ends at 0\.8 .* widen"),
        (
            lambda: mk.Importance(mk.Cauchy(0.5), mk.Gaussian(0.5)).at(X),
            ValueError,
            "have no variance: the proposal's tail is lighter",
        ),
        (
            lambda: mk.Importance(mk.Laplace(0.5), mk.Gaussian(5.0)).at(X),
            ValueError,
            "have no variance: the proposal's tail is lighter",
        ),
        (
            lambda: mk.Importance(mk.Gaussian(0.5), mk.Gaussian([0.5, 0.0, 0.5])).at(X),
            ValueError,
            "must move the same coordinates",
        ),
        (lambda: mk.Importance(mk.Gaussian(0.5), 0.3), TypeError, "0.3 is not a kernel"),
        (
            lambda: mk.Importance(mk.Gaussian(1), mk.Gaussian(1), least_share=0),
            ValueError,
            "least_share=0 must be",
        ),
    ],
)
def test_bad_proposals_are_refused_by_name(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


def test_a_collapse_is_seen_before_the_model_is_called():
    class Untouched:
        def value_and_gradient(self, points):
            raise AssertionError("the model is not to be called")

    law = mk.Importance(mk.Gaussian(0.5), mk.Gaussian(0.9))
    with pytest.raises(ValueError, match=r"the input: .*the weights collapse"):
        mk.Pathwise(law).estimate(Untouched(), np.zeros(64), budget=mk.Evaluations(64))
    few = mk.Importance(mk.Gaussian(0.5), mk.Gaussian(0.9), least_share=1e-12)
    assert few.at(np.zeros(64)).effective_share < 0.1
