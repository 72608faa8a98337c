from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import SkipTest

import numpy as np

from mollikit.oracles import Array, GradientOracle, Multitarget, Points
from mollikit.testing.batches import by_name, each, flat

_BEYOND = 10**9


class MultitargetChecks(ABC):
    """What an oracle must do that tells of several targets at once; skipped where it does not."""

    @abstractmethod
    def oracle(self) -> GradientOracle: ...

    @abstractmethod
    def _batch(self, m: int, seed: int = 0) -> tuple[Points, Mapping[str, Array]]: ...

    @abstractmethod
    def _assert_same(self, actual: Any, expected: Any, points: Points, *, what: str) -> None: ...

    def targets(self) -> Array:
        """Return targets (K,) or (K, n_axes) to be asked for together; by default those that `held` holds."""
        by_row = self._batch(16)[1].get("target")
        return np.zeros(0, np.int64) if by_row is None else np.unique(by_row, axis=0)

    def test_each_target_gets_what_it_gets_alone(self) -> None:
        """Entry k is what the oracle gives where target k is held with every row, whatever the order."""
        oracle, targets = self._multitarget()
        points, held = self._without_target(5)
        before = each(points, np.copy)
        self._check(oracle, points, targets, held)
        self._check(oracle, points, targets[::-1], held)
        for name, array in by_name(points).items():
            assert np.array_equal(array, by_name(before)[name]), f"points {name!r} were changed"

    def test_one_target_and_one_twice(self) -> None:
        """A single target may be asked for, and the same one twice."""
        oracle, targets = self._multitarget()
        points, held = self._without_target(3)
        self._check(oracle, points, targets[:1], held)
        self._check(oracle, points, targets[[0, -1, 0]], held)

    def test_no_points_of_several_targets(self) -> None:
        """No points give values (K, 0), or None, and K gradients of no rows."""
        oracle, targets = self._multitarget()
        points, held = self._without_target(2)
        none = {name: array[:0] for name, array in held.items()}
        values, gradients = oracle.values_and_gradients(each(points, lambda a: a[:0]), targets, **none)
        assert values is None or values.shape == (len(targets), 0)
        assert len(gradients) == len(targets)
        for gradient in gradients:
            for name, array in by_name(points).items():
                assert by_name(gradient)[name].shape == (0, *array.shape[1:])

    def test_targets_that_cannot_be_are_refused(self) -> None:
        """None, one that is out of range, and one that is held beside, raise ValueError with a reason."""
        oracle, targets = self._multitarget()
        points, held = self._without_target(2)
        wrong = targets.copy()
        wrong[-1] = _BEYOND
        beside = {**held, "target": np.broadcast_to(targets[0], (2, *targets.shape[1:]))}
        for given, others, named in (
            (wrong, held, str(_BEYOND)),
            (targets[:0], held, "targets"),
            (targets, beside, "'target'"),
        ):
            said = _refusal(oracle, points, given, others)
            assert said is not None, f"targets {given.tolist()} were taken"
            assert named in said, f"the message does not name {named}: {said}"

    def test_several_targets_from_threads(self) -> None:
        """Sixty calls from twelve threads, all with different points, are all right."""
        oracle, targets = self._multitarget()
        batches = [self._without_target(3, seed=k) for k in range(60)]
        expected = [oracle.values_and_gradients(points, targets, **held) for points, held in batches]
        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(oracle.values_and_gradients, p, targets, **held) for p, held in batches]
            results = [call.result() for call in calls]
        for (points, _), got, want in zip(batches, results, expected, strict=True):
            for k in range(len(targets)):
                self._assert_same(_entry(got, k), _entry(want, k), points, what="a call from threads")

    def _check(self, oracle: Any, points: Points, targets: Array, held: Mapping[str, Array]) -> None:
        together = oracle.values_and_gradients(points, targets, **held)
        assert len(together[1]) == len(targets)
        for k, target in enumerate(targets):
            by_row = np.broadcast_to(target, (len(flat(points)), *np.shape(target)))
            alone = oracle.value_and_gradient(points, **held, target=by_row)
            what = f"target {target.tolist()}, number {k} of {len(targets)}, together and alone"
            self._assert_same(_entry(together, k), alone, points, what=what)

    def _without_target(self, m: int, seed: int = 0) -> tuple[Points, dict[str, Array]]:
        points, held = self._batch(m, seed)
        return points, {name: array for name, array in held.items() if name != "target"}

    def _multitarget(self) -> tuple[Any, Array]:
        oracle, targets = self.oracle(), self.targets()
        if not isinstance(oracle, Multitarget) or not len(targets):
            raise SkipTest("this oracle, or this suite, has no several targets")
        return oracle, targets


def _entry(answer: tuple[Array | None, Any], k: int) -> tuple[Array | None, Any]:
    values, gradients = answer
    return None if values is None else values[k], gradients[k]


def _refusal(oracle: Multitarget, points: Points, targets: Array, held: Mapping[str, Array]) -> str | None:
    try:
        oracle.values_and_gradients(points, targets, **held)
    except ValueError as error:
        return str(error)
    return None
