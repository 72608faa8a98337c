"""NoiseGrad and FusionGrad against the formulas of their paper, where the mean over weights is known."""

from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk
from tests.core.test_unbiased import assert_agrees
from tests.core.weighted_forms import cubes, product, smoothed_cubes, smoothed_product

X = np.random.default_rng(1).standard_normal(6)


def assert_estimates(estimate, truth):
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)


def test_noisegrad_is_the_mean_over_multiplied_weights():
    net, x = product(), X[:5]
    w = net.weights["W"]
    estimate = mk.recipes.noisegrad(net, x, budget=mk.Evaluations(1 << 12), rng=0)
    # Equation: E_NG = 1/N sum_i grad f(x; theta * eta_i), eta ~ N(1, s^2).
    assert_estimates(estimate, smoothed_product(x, w, 0.2**2 * w**2))
    with pytest.raises(AssertionError):  # additive noise of the same deviation
        assert_estimates(estimate, smoothed_product(x, w, np.full_like(w, 0.2**2)))
    assert estimate.provenance["weights"]["inputs_per_model"] == 1


def test_noise_that_piles_up_from_model_to_model_is_another_estimand():
    # What the authors' program computes over its 10 models: the i-th carries i noises, E w^2 (1 + s^2)^i.
    net, x, s = product(), X[:5], 0.2
    w = net.weights["W"]
    estimate = mk.recipes.noisegrad(net, x, budget=mk.Evaluations(1 << 12), rng=0)
    piled = np.mean([smoothed_product(x, w, ((1 + s**2) ** i - 1) * w**2) for i in range(1, 11)], axis=0)
    with pytest.raises(AssertionError):
        assert_estimates(estimate, piled)

    rng, runs = np.random.default_rng(0), []
    for _ in range(4000):
        noisy, total = w.copy(), 0
        for _ in range(10):
            noisy *= rng.normal(1, s, w.shape)
            total = total + x @ noisy @ noisy.T
        runs.append(total / 10)
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    assert_agrees(np.mean(runs, axis=0), error, len(runs) - 1, piled)


def test_fusiongrad_is_the_mean_over_models_and_inputs():
    net = cubes()
    a, b = net.weights.values()
    estimate = mk.recipes.fusiongrad(net, X, budget=mk.Evaluations(20 << 10), rng=0)
    width = 0.15 * np.ptp(X)
    whole = {"inputs": width**2, "weights": 0.04 * a**2, "biases": 0.04 * b**2}
    assert_estimates(estimate, smoothed_cubes(X, a, b, **whole))
    for forgotten in ("inputs", "weights"):
        with pytest.raises(AssertionError):
            assert_estimates(estimate, smoothed_cubes(X, a, b, **{**whole, forgotten: 0}))
    assert estimate.provenance["weights"]["inputs_per_model"] == 10
    assert (estimate.group_size, estimate.n_evaluations) == (20, 20 << 10)


def test_a_few_models_agree_with_the_formula_by_hand():
    # Two models and no freedom left: the estimate is the mean of the gradients at the models that were drawn.
    from mollikit.engine.streams import Key
    from mollikit.estimators.weights import WeightPerturbation

    net = cubes()
    estimate = mk.recipes.noisegrad(net, X, budget=mk.Evaluations(4), rng=7)
    perturbation = WeightPerturbation.of(net.weights, mk.Gaussian(mk.OfMagnitude(0.2)), mk.Antithetic())
    gradients = []
    for group in range(2):
        models = perturbation.group(net.weights, Key(7), group)
        pair = [models.model(member) for member in range(2)]
        for name, weight in net.weights.items():
            np.testing.assert_allclose((pair[0][name] + pair[1][name]) / 2, weight, rtol=1e-14)
        gradients += [net.reweighted(model).value_and_gradient(X[None])[1][0] for model in pair]
    np.testing.assert_allclose(estimate.gradient, np.mean(gradients, axis=0), rtol=1e-12)


def test_an_attribution_is_smoothed_in_the_weights_too():
    net = cubes()
    a, b = net.weights.values()
    estimate = mk.recipes.noisegrad(mk.InputTimesGradient(net), X, budget=mk.Evaluations(1 << 11), rng=0)
    truth = X * smoothed_cubes(X, a, b, weights=0.04 * a**2, biases=0.04 * b**2)
    assert_estimates(estimate, truth)
