from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import SkipTest

import numpy as np

from mollikit.oracles import Array, GradientOracle, Points, Reweightable
from mollikit.testing.batches import flat


class ReweightingChecks(ABC):
    """What an oracle must do whose weights may be smoothed; the checks are skipped where it shows none."""

    @abstractmethod
    def oracle(self) -> GradientOracle: ...

    @abstractmethod
    def _batch(self, m: int, seed: int = 0) -> tuple[Points, Mapping[str, Array]]: ...

    @abstractmethod
    def _check_gradient(self, oracle: GradientOracle) -> None: ...

    @abstractmethod
    def _assert_same(self, actual: Any, expected: Any, points: Points, *, what: str) -> None: ...

    def test_weights_are_finite_floats(self) -> None:
        """Weights are arrays of finite floats by name."""
        for name, weight in self._reweightable().weights.items():
            assert isinstance(name, str), f"{name!r} is no name"
            assert np.issubdtype(weight.dtype, np.floating), f"weight {name!r} is of {weight.dtype}"
            assert np.isfinite(weight).all(), f"weight {name!r} is not finite"

    def test_its_own_weights_change_nothing(self) -> None:
        """The oracle with copies of its own weights, all or none, gives the same gradients."""
        oracle = self._reweightable()
        points, held = self._batch(5)
        expected = oracle.value_and_gradient(points, **held)
        copies = {name: weight.copy() for name, weight in oracle.weights.items()}
        for what, weights in (("its own weights", copies), ("none replaced", {})):
            got = oracle.reweighted(weights).value_and_gradient(points, **held)
            self._assert_same(got, expected, points, what=what)

    def test_the_gradient_is_that_of_the_other_weights(self) -> None:
        """With other weights the gradients differ, and agree with central differences of *their* values."""
        oracle = self._reweightable()
        points, held = self._batch(6)
        other = oracle.reweighted(_perturbed(oracle.weights, seed=1))
        moved = flat(other.value_and_gradient(points, **held)[1])
        assert not np.allclose(moved, flat(oracle.value_and_gradient(points, **held)[1]))
        self._check_gradient(other)

    def test_one_weight_may_be_replaced_and_all_one_after_the_other(self) -> None:
        """Replacing the weights one by one ends where replacing them together does."""
        oracle = self._reweightable()
        points, held = self._batch(3)
        weights = _perturbed(oracle.weights, seed=2)
        one_by_one: Any = oracle
        for name, weight in list(weights.items())[:4]:
            one_by_one = one_by_one.reweighted({name: weight})
        together = oracle.reweighted(dict(list(weights.items())[:4]))
        expected = together.value_and_gradient(points, **held)
        self._assert_same(one_by_one.value_and_gradient(points, **held), expected, points, what="one by one")

    def test_weights_and_arrays_are_left_alone(self) -> None:
        """Neither the model nor the arrays that take its weights' place are written, and the oracle stays."""
        oracle = self._reweightable()
        points, held = self._batch(5)
        before = {name: weight.copy() for name, weight in oracle.weights.items()}
        first = oracle.value_and_gradient(points, **held)
        weights = _perturbed(oracle.weights, seed=3)
        copies = {name: weight.copy() for name, weight in weights.items()}
        oracle.reweighted(weights).value_and_gradient(points, **held)
        for name, weight in oracle.weights.items():
            assert np.array_equal(weight, before[name]), f"the model's weight {name!r} was changed"
            assert np.array_equal(weights[name], copies[name]), f"the array given for {name!r} was changed"
        again = oracle.value_and_gradient(points, **held)
        assert np.array_equal(flat(first[1]), flat(again[1])), "the oracle itself was changed"

    def test_unknown_weights_and_other_shapes_are_refused(self) -> None:
        """A name or a shape that is not the model's raises ValueError, naming it."""
        oracle = self._reweightable()
        name, weight = next(iter(oracle.weights.items()))
        for given, named in (({"no such weight": weight}, "no such weight"), ({name: weight[None]}, name)):
            said = _refusal(oracle, given)
            assert said is not None, f"{named!r} was taken"
            assert named in said, f"the message does not name {named!r}: {said}"

    def test_threads_with_weights(self) -> None:
        """Sixty calls from twelve threads, all with weights of their own, are all right: 0 wrong."""
        oracle = self._reweightable()
        points, held = self._batch(3)
        others = [oracle.reweighted(_perturbed(oracle.weights, seed=k)) for k in range(60)]
        expected = [other.value_and_gradient(points, **held) for other in others]
        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(other.value_and_gradient, points, **held) for other in others]
            results = [call.result() for call in calls]
        for k, (got, want) in enumerate(zip(results, expected, strict=True)):
            self._assert_same(got, want, points, what=f"call {k} from threads with weights of its own")

    def _reweightable(self) -> Any:
        oracle = self.oracle()
        if not isinstance(oracle, Reweightable) or not oracle.weights:
            raise SkipTest("this oracle shows no weights")
        return oracle


def _refusal(oracle: Reweightable, weights: Mapping[str, Array]) -> str | None:
    try:
        oracle.reweighted(weights)
    except ValueError as error:
        return str(error)
    return None


def _perturbed(weights: Mapping[str, Array], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: (weight * (1 + 0.2 * rng.standard_normal(weight.shape))).astype(weight.dtype)
        for name, weight in weights.items()
    }
