from __future__ import annotations

import time
from unittest import SkipTest

import numpy as np
import pytest

from mollikit.targets import coordinates_of, read_targets
from mollikit.testing import OracleConformance
from tests.core.closed_forms import Cubic

A = np.random.default_rng(5).standard_normal((6, 4))


class Waves:
    """Outputs f_j(x) = sin(x . a_j), of which a held target chooses one a row."""

    def value_and_gradient(self, points, *, target):
        phase = points @ A
        rows = np.arange(len(points))
        return np.sin(phase[rows, target]), np.cos(phase[rows, target])[:, None] * A.T[target]

    def values_and_gradients(self, points, targets, **held):
        where = coordinates_of(read_targets(targets, held), len(points), (4,))
        phase = (points @ A)[where[..., 0], where[..., 1]]
        return np.sin(phase), list(np.cos(phase)[..., None] * A.T[where[:, :, 1]])


class TestWaves(OracleConformance):
    def oracle(self):
        return Waves()

    def points(self, m, rng):
        return rng.standard_normal((m, 6))

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class OneForAll(Waves):
    def values_and_gradients(self, points, targets, **held):
        values, gradients = super().values_and_gradients(points, targets, **held)
        return values, [gradients[0]] * len(gradients)


class Sorted(Waves):
    def values_and_gradients(self, points, targets, **held):
        return super().values_and_gradients(points, np.sort(targets), **held)


class EachOnce(Waves):
    def values_and_gradients(self, points, targets, **held):
        return super().values_and_gradients(points, list(dict.fromkeys(np.asarray(targets).tolist())), **held)


class Wraps(Waves):
    def values_and_gradients(self, points, targets, **held):
        return super().values_and_gradients(points, np.asarray(targets) % 4, **held)


class IgnoresWhatIsHeld(Waves):
    def values_and_gradients(self, points, targets, **held):
        return super().values_and_gradients(points, targets)


class KeepsItsScratch(Waves):
    """Threads share what lies between the forward pass and the backward ones."""

    def values_and_gradients(self, points, targets, **held):
        self.points = points
        chosen = read_targets(targets, held)
        time.sleep(1e-3)
        return super().values_and_gradients(self.points, chosen, **held)


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (OneForAll, "test_each_target_gets_what_it_gets_alone"),
        (Sorted, "test_each_target_gets_what_it_gets_alone"),
        (EachOnce, "test_one_target_and_one_twice"),
        (Wraps, "test_targets_that_cannot_be_are_refused"),
        (IgnoresWhatIsHeld, "test_targets_that_cannot_be_are_refused"),
        (KeepsItsScratch, "test_several_targets_from_threads"),
    ],
)
def test_a_faulty_oracle_is_found(faulty, check):
    """The negative control: each fault fails the check that is meant for it."""
    suite = TestWaves()
    suite.oracle = faulty
    with pytest.raises((AssertionError, ValueError)):
        getattr(suite, check)()


def test_an_oracle_of_one_target_is_skipped():
    suite = TestWaves()
    suite.oracle = Cubic
    with pytest.raises(SkipTest):
        suite.test_one_target_and_one_twice()


@pytest.mark.parametrize(
    ("targets", "error", "named"),
    [
        ([], ValueError, "there are none"),
        ("top", TypeError, "'top'"),
        (["top"], TypeError, "'top'"),
        ([None], TypeError, "None"),
        ([np.sum], TypeError, "function"),
        (3, TypeError, "3"),
        ([1.0, 2], TypeError, "1.0"),
        ([True], TypeError, "True"),
        ([2, -1], ValueError, "-1"),
        ([1, (2, 3)], ValueError, "different numbers"),
        ([((1, 2), 3)], TypeError, "(1, 2)"),
    ],
)
def test_lists_that_are_no_targets_are_refused_by_name(targets, error, named):
    with pytest.raises(error) as raised:
        read_targets(targets, {})
    assert named in str(raised.value)
