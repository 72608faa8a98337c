from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mollikit.testing import OracleConformance


class Quadratic:
    """f(x) = w_t . tanh(x) + (m * x)^2 / 2, with a target t and a mask m by row."""

    weights = np.random.default_rng(5).standard_normal((4, 6))

    def value_and_gradient(self, points, *, target, mask):
        weights = self.weights[target]
        values = (weights * np.tanh(points)).sum(-1) + ((mask * points) ** 2).sum(-1) / 2
        return values, weights / np.cosh(points) ** 2 + mask * points


class TestQuadratic(OracleConformance):
    def oracle(self):
        return Quadratic()

    def points(self, m, rng):
        return rng.standard_normal((m, 6))

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m), "mask": rng.integers(0, 2, (m, 6)).astype(float)}


class TestQuadraticInSinglePrecision(TestQuadratic):
    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(np.float32)


class Relu:
    """A function with kinks: f(x) = v . max(Wx, 0)."""

    inner = np.random.default_rng(6).standard_normal((12, 5))
    outer = np.random.default_rng(7).standard_normal(12)

    def value_and_gradient(self, points):
        before = points["x"] @ self.inner[:, :3].T + points["y"] @ self.inner[:, 3:].T
        back = ((before > 0) * self.outer) @ self.inner
        return np.maximum(before, 0) @ self.outer, {"x": back[:, :3], "y": back[:, 3:]}


class TestSeveralInputs(OracleConformance):
    def oracle(self):
        return Relu()

    def points(self, m, rng):
        return {"x": rng.standard_normal((m, 3)), "y": rng.standard_normal((m, 2))}


class Doubled(Quadratic):
    def value_and_gradient(self, points, **held):
        values, gradients = super().value_and_gradient(points, **held)
        return values, 1.05 * gradients


class OneCoordinateWrong(Quadratic):
    def value_and_gradient(self, points, **held):
        values, gradients = super().value_and_gradient(points, **held)
        gradients[:, 2] = -gradients[:, 2]
        return values, gradients


class CoupledByTheBatch(Quadratic):
    def value_and_gradient(self, points, **held):
        return super().value_and_gradient(points - 1e-3 * points.mean(0), **held)


class OneTargetForAll(Quadratic):
    def value_and_gradient(self, points, *, target, mask):
        return super().value_and_gradient(points, target=target[:1].repeat(len(target)), mask=mask)


class WritesIntoItsInput(Quadratic):
    def value_and_gradient(self, points, **held):
        if points.flags.writeable:
            points *= 1.5
        return super().value_and_gradient(points, **held)


class NeedsWritablePoints(Quadratic):
    def value_and_gradient(self, points, **held):
        if not points.flags.writeable:
            points = np.zeros_like(points)
        return super().value_and_gradient(points, **held)


class ReadsTheBufferBlindly(Quadratic):
    def value_and_gradient(self, points, **held):
        base = points if points.base is None else points.base
        return super().value_and_gradient(base.ravel()[: points.size].reshape(points.shape), **held)


class SharesStateBetweenThreads(Quadratic):
    def __init__(self):
        self.barrier = threading.Event()

    def value_and_gradient(self, points, **held):
        self.points = points
        time.sleep(1e-3)
        return super().value_and_gradient(self.points, **held)


class Random(Quadratic):
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def value_and_gradient(self, points, **held):
        values, gradients = super().value_and_gradient(points, **held)
        return values, gradients * (1 + 1e-13 * self.rng.standard_normal(gradients.shape))


class DropsTheBatchAxis(Quadratic):
    def value_and_gradient(self, points, **held):
        values, gradients = super().value_and_gradient(points, **held)
        return values[:, None], gradients


class BreaksOnNoRows(Quadratic):
    def value_and_gradient(self, points, **held):
        values, gradients = super().value_and_gradient(points, **held)
        return values.reshape(-1)[:1], gradients.reshape(-1, 3)


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (Doubled, "test_gradient_agrees_with_central_differences"),
        (OneCoordinateWrong, "test_gradient_agrees_with_central_differences"),
        (CoupledByTheBatch, "test_batch_equals_loop"),
        (OneTargetForAll, "test_batch_equals_loop"),
        (WritesIntoItsInput, "test_inputs_are_left_alone"),
        (NeedsWritablePoints, "test_read_only_and_strided_inputs"),
        (ReadsTheBufferBlindly, "test_read_only_and_strided_inputs"),
        (SharesStateBetweenThreads, "test_threads"),
        (Random, "test_determinism"),
        (DropsTheBatchAxis, "test_shapes_and_dtypes"),
        (BreaksOnNoRows, "test_empty_batch"),
    ],
)
def test_a_wrong_oracle_fails_the_suite(wrong, test):
    suite = TestQuadratic()
    suite.oracle = wrong
    with pytest.raises(AssertionError):
        getattr(suite, test)()


class Rough(Relu):
    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        return np.round(values, 3), gradients


def test_a_function_too_rough_for_differences_is_not_passed():
    suite = TestSeveralInputs()
    suite.oracle = Rough
    with pytest.raises(AssertionError):
        suite.test_gradient_agrees_with_central_differences()
