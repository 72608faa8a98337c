from __future__ import annotations

import time
from unittest import SkipTest

import numpy as np
import pytest

from mollikit.testing import OracleConformance
from tests.core.closed_forms import Cubic
from tests.core.weighted_forms import Weighted


class Perceptron(Weighted):
    """f(x) = tanh(x A + b) . c."""

    def value_and_gradient(self, points):
        a, b, c = (self.weights[name] for name in "Abc")
        hidden = np.tanh(points @ a + b)
        return hidden @ c, ((1 - hidden**2) * c) @ a.T


def perceptron(kind=Perceptron):
    rng = np.random.default_rng(3)
    return kind({"A": rng.standard_normal((5, 7)), "b": rng.standard_normal(7), "c": rng.standard_normal(7)})


class TestPerceptron(OracleConformance):
    def oracle(self):
        return perceptron()

    def points(self, m, rng):
        return rng.standard_normal((m, 5))


class IgnoresTheWeights(Perceptron):
    def reweighted(self, weights):
        super().reweighted(weights)
        return perceptron()


class TakesAnything(Perceptron):
    def reweighted(self, weights):
        return type(self)({**self.weights, **weights})


class BackwardWithTheOldWeights(Perceptron):
    """A gradient of the values with other weights that is computed with the model's own."""

    def value_and_gradient(self, points):
        return super().value_and_gradient(points)[0], perceptron().value_and_gradient(points)[1]


class ForgetsTheWeightsBefore(Perceptron):
    def reweighted(self, weights):
        super().reweighted(weights)
        return type(self)({**perceptron().weights, **weights})


class WritesOnTheModel(Perceptron):
    """Puts the weights into the model for the time of a call, as a shared module is patched."""

    def reweighted(self, weights):
        super().reweighted(weights)
        return Patching(self, weights)


class Patching:
    def __init__(self, model, weights):
        self.model, self.replaced = model, weights

    @property
    def weights(self):
        return {**self.model.weights, **self.replaced}

    def reweighted(self, weights):
        return Patching(self.model, {**self.replaced, **weights})

    def value_and_gradient(self, points):
        own = dict(self.model.weights)
        self.model.weights.update(self.replaced)
        time.sleep(1e-3)
        answer = self.model.value_and_gradient(points)
        self.model.weights.update(own)
        return answer


class WritesOnTheArrays(Perceptron):
    def value_and_gradient(self, points):
        answer = super().value_and_gradient(points)
        self.weights["b"][...] += 0.1
        return answer


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (IgnoresTheWeights, "test_the_gradient_is_that_of_the_other_weights"),
        (BackwardWithTheOldWeights, "test_the_gradient_is_that_of_the_other_weights"),
        (TakesAnything, "test_unknown_weights_and_other_shapes_are_refused"),
        (ForgetsTheWeightsBefore, "test_one_weight_may_be_replaced_and_all_one_after_the_other"),
        (WritesOnTheArrays, "test_weights_and_arrays_are_left_alone"),
        (WritesOnTheModel, "test_threads_with_weights"),
    ],
)
def test_a_wrong_oracle_fails_the_suite(wrong, test):
    suite = TestPerceptron()
    suite.oracle = lambda: perceptron(wrong)
    with pytest.raises(AssertionError):
        getattr(suite, test)()


def test_an_oracle_without_weights_is_not_asked_for_them():
    suite = TestPerceptron()
    suite.oracle = Cubic
    with pytest.raises(SkipTest):
        suite.test_threads_with_weights()
