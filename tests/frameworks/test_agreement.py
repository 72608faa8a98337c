"""One network in every framework gives one smoothed gradient from one seed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import mollikit as mk
from tests.frameworks.carried import FRAMEWORKS, NEEDS, SHAPES

MODES = {
    "inputs": {"inputs": mk.Gaussian(0.3)},
    "weights": {"weights": mk.Gaussian(mk.OfMagnitude(0.2))},
    "both": {"inputs": mk.Gaussian(0.3), "weights": mk.Gaussian(mk.OfMagnitude(0.2))},
    "chosen weights": {"weights": {"?1": mk.Logistic(0.1), "*": None}},
}


def estimated(oracle, net, mode, rng=5):
    x = np.random.default_rng(2).standard_normal(SHAPES[net]).astype(np.float32)
    smooth = mk.Pathwise(**MODES[mode], block=32)
    return smooth.estimate(oracle, x, budget=mk.Evaluations(128), rng=rng)


@cache
def reference(net, mode, rng=5):
    return estimated(FRAMEWORKS["numpy"](net), net, mode, rng)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", SHAPES)
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_a_framework_agrees_with_numpy_in_float64(framework, net, mode):
    pytest.importorskip(NEEDS[framework])
    got, expected = estimated(FRAMEWORKS[framework](net), net, mode), reference(net, mode)
    scale = np.abs(expected.gradient).max()
    assert np.abs(got.gradient - expected.gradient).max() < 1e-5 * scale
    np.testing.assert_allclose(got.standard_error, expected.standard_error, rtol=1e-3, atol=1e-5 * scale)
    np.testing.assert_allclose(got.output.value, expected.output.value, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", SHAPES)
def test_another_seed_and_another_mode_differ(net, mode):
    expected = reference(net, mode)
    scale = np.abs(expected.gradient).max()
    others = [reference(net, mode, rng=6), *(reference(net, other) for other in MODES if other != mode)]
    for other in others:
        assert np.abs(other.gradient - expected.gradient).max() > 1e-3 * scale


@pytest.mark.parametrize("mode", ["inputs", "both"])
@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "numpy"])
def test_several_targets_get_what_each_gets_alone(framework, mode):
    """One forward pass, and in the order of the targets what the framework gives each, to rounding."""
    pytest.importorskip(NEEDS[framework])
    net, oracle, targets = "mlp", FRAMEWORKS[framework]("mlp"), [2, 0, 2]
    x = np.random.default_rng(2).standard_normal(SHAPES[net]).astype(np.float32)
    smooth = mk.Pathwise(**MODES[mode], block=32)
    together = smooth.estimate_targets(oracle, x, targets, budget=mk.Evaluations(64), rng=5)
    for target, got in zip(targets, together, strict=True):
        alone = smooth.estimate(oracle, x, held={"target": target}, budget=mk.Evaluations(64), rng=5)
        scale = np.abs(alone.gradient).max()
        np.testing.assert_allclose(got.gradient, alone.gradient, rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(got.standard_error, alone.standard_error, rtol=1e-5, atol=1e-6 * scale)
        np.testing.assert_allclose(got.output.value, alone.output.value, rtol=1e-5)
    assert np.abs(together[0].gradient - together[1].gradient).max() > 0.1 * scale
