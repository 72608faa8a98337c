from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mollikit.oracles import Array, GradientOracle, Points
from mollikit.testing.batches import by_name, each, flat, n_rows
from mollikit.testing.differences import central_differences
from mollikit.testing.multitarget import MultitargetChecks
from mollikit.testing.reweighting import ReweightingChecks
from mollikit.testing.tolerances import assert_rows_close, machine_epsilon


class OracleConformance(ReweightingChecks, MultitargetChecks):
    """What every oracle must do, as a test suite to inherit; `Reweightable` and `Multitarget` ones some more.

    A subclass named ``Test...`` says how to make an oracle and a batch; pytest does the rest. Choose
    points at which the function is not flat, and `held` arrays that differ from row to row.

    Examples
    --------
    >>> class Cubic:
    ...     def value_and_gradient(self, points, **held):
    ...         return (points**3).sum(-1), 3 * points**2
    >>> class TestCubic(OracleConformance):
    ...     def oracle(self):
    ...         return Cubic()
    ...     def points(self, m, rng):
    ...         return rng.standard_normal((m, 5))
    >>> TestCubic().test_gradient_agrees_with_central_differences()
    """

    def oracle(self) -> GradientOracle:
        """Return the oracle to be tested."""
        raise NotImplementedError

    def points(self, m: int, rng: np.random.Generator) -> Points:
        """Return m points in the dtype that the oracle computes in."""
        raise NotImplementedError

    def held(self, m: int, rng: np.random.Generator) -> Mapping[str, Array]:
        """Return the arrays that travel with m rows: targets, masks, side inputs. By default none."""
        return {}

    def value(self, oracle: Any, points: Any, held: Mapping[str, Array]) -> Array:
        """Return the values (m,) that the gradient is checked against; override it where there are none."""
        values, _ = oracle.value_and_gradient(points, **held)
        assert values is not None, "the oracle gives no values: override OracleConformance.value"
        return np.asarray(values)

    def test_shapes_and_dtypes(self) -> None:
        """Values are floats (m,) or None; gradients floats in the points' own form."""
        points, held = self._batch(5)
        values, gradients = self.oracle().value_and_gradient(points, **held)
        assert isinstance(gradients, Mapping) == isinstance(points, Mapping)
        assert by_name(gradients).keys() == by_name(points).keys()
        for name, array in by_name(points).items():
            gradient = by_name(gradients)[name]
            assert gradient.shape == array.shape, f"{name}: {gradient.shape}, points {array.shape}"
            assert np.issubdtype(gradient.dtype, np.floating), f"{name}: {gradient.dtype}"
        if values is not None:
            assert values.shape == (5,)
            assert np.issubdtype(values.dtype, np.floating)

    def test_empty_batch(self) -> None:
        """No points give no values and no gradients, of the right shapes."""
        points, held = self._batch(2)
        none = {name: array[:0] for name, array in held.items()}
        values, gradients = self.oracle().value_and_gradient(each(points, lambda a: a[:0]), **none)
        for name, array in by_name(points).items():
            assert by_name(gradients)[name].shape == (0, *array.shape[1:])
        assert values is None or values.shape == (0,)

    def test_batch_equals_loop(self) -> None:
        """Row k of a batch, with its held arrays, is what the point gets alone."""
        points, held = self._batch(7)
        oracle = self.oracle()
        together = oracle.value_and_gradient(points, **held)
        for k in range(7):
            alone = oracle.value_and_gradient(*_row(points, k), **_row_held(held, k))
            self._assert_same(_rows_of(together, k), alone, points, what=f"row {k} in a batch and alone")

    def test_gradient_agrees_with_central_differences(self) -> None:
        """Along the gradient mixed with random directions, the values change as the gradient says.

        A kink inside the step shows as unequal one-sided differences, and their gap is allowed; a check
        whose allowance is no longer small beside the slopes counts as failed.
        """
        self._check_gradient(self.oracle())

    def _check_gradient(self, oracle: GradientOracle) -> None:
        points, held = self._batch(6)
        gradients = oracle.value_and_gradient(points, **held)[1]
        assert np.all(np.isfinite(flat(gradients))), "a gradient is not finite"
        found = central_differences(
            lambda moved: self.value(oracle, moved, held), gradients, points, _dtype(points)
        )
        assert found.agree, (
            "the gradient is off: errors relative to the slopes, by row: "
            f"{(found.errors / np.abs(found.slopes)).max(axis=0)}, "
            f"allowed {(found.allowances / np.abs(found.slopes)).max(axis=0)}"
        )
        assert found.uncertainty < 0.1, (
            f"at these points differences tell the slope to {found.uncertainty:.0%} only: choose points "
            "where the function is smoother or steeper"
        )

    def test_determinism(self) -> None:
        """The same call gives the same bits."""
        points, held = self._batch(5)
        oracle = self.oracle()
        first, second = (oracle.value_and_gradient(points, **held) for _ in range(2))
        assert np.array_equal(flat(first[1]), flat(second[1])), "two equal calls differ"

    def test_inputs_are_left_alone(self) -> None:
        """Neither points nor held arrays change, and a result does not share their memory."""
        points, held = self._batch(5)
        before = each(points, np.copy)
        held_before = {name: array.copy() for name, array in held.items()}
        _, gradients = self.oracle().value_and_gradient(points, **held)
        for name, array in by_name(points).items():
            assert np.array_equal(array, by_name(before)[name]), f"points {name!r} were changed"
            assert not np.shares_memory(array, by_name(gradients)[name])
        for name, array in held.items():
            assert np.array_equal(array, held_before[name]), f"held {name!r} was changed"

    def test_read_only_and_strided_inputs(self) -> None:
        """Read-only points, and points that are not contiguous, give the same gradients."""
        points, held = self._batch(5)
        oracle = self.oracle()
        expected = oracle.value_and_gradient(points, **held)
        for what, change in (("read-only", _read_only), ("strided", _strided)):
            changed = {name: change(array) for name, array in held.items()}
            got = oracle.value_and_gradient(each(points, change), **changed)
            self._assert_same(got, expected, points, what=f"{what} points")

    def test_threads(self) -> None:
        """Sixty calls from twelve threads, all with different points, are all right."""
        oracle = self.oracle()
        batches = [self._batch(3, seed=k) for k in range(60)]
        expected = [oracle.value_and_gradient(points, **held) for points, held in batches]
        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(oracle.value_and_gradient, points, **held) for points, held in batches]
            results = [call.result() for call in calls]
        for k, (got, want) in enumerate(zip(results, expected, strict=True)):
            self._assert_same(got, want, batches[k][0], what=f"call {k} from threads")

    def _batch(self, m: int, seed: int = 0) -> tuple[Points, Mapping[str, Array]]:
        rng = np.random.default_rng(seed)
        points, held = self.points(m, rng), self.held(m, rng)
        assert n_rows(points) == m, f"points({m}, rng) gave {n_rows(points)} rows"
        return points, held

    def _assert_same(self, actual: Any, expected: Any, points: Points, *, what: str) -> None:
        for name, gradient in by_name(expected[1]).items():
            got = by_name(actual[1])[name]
            assert_rows_close(got, gradient, _dtype(points), what=f"gradient {name!r}, {what}")
        if expected[0] is not None:
            assert_rows_close(np.asarray(actual[0]), expected[0], _dtype(points), what=f"values, {what}")


def _row(points: Points, k: int) -> tuple[Points]:
    return (each(points, lambda array: array[k : k + 1]),)


def _row_held(held: Mapping[str, Array], k: int) -> dict[str, Array]:
    return {name: array[k : k + 1] for name, array in held.items()}


def _rows_of(result: tuple[Array | None, Any], k: int) -> tuple[Array | None, Points]:
    values, gradients = result
    return None if values is None else values[k : k + 1], _row(gradients, k)[0]


def _dtype(points: Points) -> np.dtype[Any]:
    dtypes = [array.dtype for array in by_name(points).values()]
    return max(dtypes, key=machine_epsilon)


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _strided(array: Array) -> Array:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]
