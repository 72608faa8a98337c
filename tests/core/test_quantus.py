"""The signature of Quantus's explain_func; Quantus itself needs OpenCV and is not installed for it."""

from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk


class Quadratic:
    """f_k(x) = sum of (w_k x)^2 / 2, for a model that is its weights (classes, *shape)."""

    def __init__(self, weights):
        self.weights = weights

    def value_and_gradient(self, points, *, target):
        scaled = self.weights[target] ** 2 * points
        return (scaled * points).reshape(len(points), -1).sum(1) / 2, scaled


MODEL = np.random.default_rng(0).standard_normal((4, 3, 5, 5))
INPUTS = np.random.default_rng(1).standard_normal((6, 3, 5, 5)).astype(np.float32)
TARGETS = np.array([0, 3, 1, 1, 2, 0], np.int32)


def test_a_batch_is_explained_row_by_row():
    explain = mk.QuantusExplainer(Quadratic, mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(32), rng=7)
    # As Quantus calls it: by keyword, with whatever explain_func_kwargs there are.
    explained = explain(model=MODEL, inputs=INPUTS, targets=TARGETS, device="cpu", normalise=True)
    assert isinstance(explained, np.ndarray)
    assert explained.shape == INPUTS.shape
    assert explained.dtype == np.float32
    np.testing.assert_allclose(explained, MODEL[TARGETS] ** 2 * INPUTS, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(explained, explain(MODEL, INPUTS, TARGETS))
    randomised = explain(MODEL[::-1], INPUTS, TARGETS)
    np.testing.assert_allclose(randomised, MODEL[::-1][TARGETS] ** 2 * INPUTS, rtol=1e-4, atol=1e-5)


def test_a_view_is_scored():
    explain = mk.QuantusExplainer(
        Quadratic, mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(32), view=lambda g: g.sum(0, keepdims=True)
    )
    expected = (MODEL[TARGETS] ** 2 * INPUTS).sum(1, keepdims=True)
    np.testing.assert_allclose(explain(MODEL, INPUTS, TARGETS), expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_explainer():
    with pytest.raises(TypeError, match="oracle makes one of a model"):
        mk.QuantusExplainer(3, mk.Pathwise(mk.Gaussian(0.1)))
    with pytest.raises(TypeError, match="smooth is an estimator"):
        mk.QuantusExplainer(Quadratic, mk.Gaussian(0.1))
