from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import mollikit as mk
from tests.core.closed_forms import Cubic, waves
from tests.core.several import Powers, bank
from tests.core.test_determinism import bits

X = np.linspace(-1, 1, 6)
KERNEL = mk.Gaussian(0.4)
SMOOTH = mk.Pathwise(KERNEL, mk.Recentred(8), block=32)
BUDGET = mk.Evaluations(256)
VIEWS = {"halves": lambda gradients: gradients.reshape(len(gradients), 2, 3).sum(-1)}


def alone(oracle, target, smooth=SMOOTH, budget=BUDGET, **arguments):
    return smooth.estimate(oracle, X, held={"target": target}, budget=budget, rng=0, **arguments)


def all_bits(estimates):
    return [bits(estimate) for estimate in estimates]


def test_each_target_has_its_own_smoothed_gradient_and_value():
    """Within six standard errors: a false alarm in 1e8, and a gradient of the next target is out of it."""
    oracle, targets = bank(), [2, 0, 3]
    estimates = SMOOTH.estimate_targets(oracle, X, targets, budget=mk.Evaluations(4096), rng=0)
    for target, estimate in zip(targets, estimates, strict=True):
        truth = oracle.output(target).smoothed_gradient(KERNEL, X, 0.4)
        off = np.abs(estimate.gradient - truth) / estimate.standard_error
        assert off.max() < 6
        value = oracle.output(target).smoothed_value(KERNEL, X, 0.4)
        assert abs(estimate.output.value - value) < 6 * estimate.output.standard_error
        other = oracle.output((target + 1) % 4).smoothed_gradient(KERNEL, X, 0.4)
        assert (np.abs(estimate.gradient - other) / estimate.standard_error).max() > 20


@pytest.mark.parametrize(
    "smooth",
    [
        SMOOTH,
        mk.Pathwise(KERNEL, mk.Sobol(16), block=48),
        mk.Pathwise(mk.Importance(mk.Gaussian(0.4), mk.Gaussian(0.5)), mk.Independent(), block=24),
        mk.Pathwise(KERNEL, second_moments=True, block=32),
    ],
    ids=["recentred", "sobol", "weighted", "second moments"],
)
def test_a_target_gets_the_bits_that_it_gets_alone(smooth):
    estimates = smooth.estimate_targets(bank(), X, [3, 1, 1], views=VIEWS, budget=BUDGET, rng=0)
    for target, estimate in zip([3, 1, 1], estimates, strict=True):
        assert bits(estimate) == bits(alone(bank(), target, smooth, views=VIEWS))


def test_one_forward_pass_serves_all_targets_in_flat_memory():
    oracle = bank()
    SMOOTH.estimate_targets(oracle, X, [0, 1, 2, 3], budget=BUDGET, rng=0)
    assert oracle.forward == [32] * 8
    assert oracle.backward == [4] * 8


def test_each_target_stops_for_itself_and_is_no_longer_asked_about():
    oracle, budget = bank(), mk.RelativeError(0.05) | mk.Evaluations(1 << 14)
    estimates = SMOOTH.estimate_targets(oracle, X, range(4), budget=budget, rng=0)
    evaluations = [estimate.n_evaluations for estimate in estimates]
    assert len(set(evaluations)) > 1, "the targets do not tell the rule apart"
    assert sum(oracle.forward) == max(evaluations)
    assert sum(n * 32 for n in oracle.backward) == sum(evaluations)
    for target, estimate in enumerate(estimates):
        assert bits(estimate) == bits(alone(bank(), target, budget=budget))


@pytest.mark.parametrize("in_flight", [1, 3, 9])
def test_workers_and_blocks_in_flight_change_nothing(in_flight):
    budget = mk.RelativeError(0.05) | mk.Evaluations(2048)
    expected = all_bits(SMOOTH.estimate_targets(bank(), X, range(4), budget=budget, rng=0))
    with ThreadPoolExecutor(3) as pool:
        got = SMOOTH.estimate_targets(
            bank(), X, range(4), budget=budget, rng=0, executor=pool, in_flight=in_flight
        )
    assert all_bits(got) == expected


def test_processes_change_nothing():
    expected = all_bits(SMOOTH.estimate_targets(bank(), X, [0, 2], budget=BUDGET, rng=0))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        got = SMOOTH.estimate_targets(bank(), X, [0, 2], budget=BUDGET, rng=0, executor=pool)
    assert all_bits(got) == expected


@pytest.mark.parametrize("inputs", [KERNEL, None], ids=["both", "weights"])
def test_targets_share_the_draws_of_the_weights_too(inputs):
    oracle, weights = Powers({"a": np.linspace(0.5, 1.5, 6)}), mk.Gaussian(mk.OfMagnitude(0.2))
    smooth = mk.Pathwise(inputs, weights=weights)
    estimates = smooth.estimate_targets(oracle, X, [1, 0], budget=BUDGET, rng=0)
    for target, estimate in zip([1, 0], estimates, strict=True):
        assert bits(estimate) == bits(alone(oracle, target, smooth))


def test_an_attribution_of_several_targets():
    per_sample = mk.InputTimesGradient(bank())
    estimates = SMOOTH.estimate_targets(per_sample, X, [2, 1], budget=BUDGET, rng=0)
    for target, estimate in zip([2, 1], estimates, strict=True):
        assert bits(estimate) == bits(alone(per_sample, target))
    with pytest.raises(TypeError, match="has no values_and_gradients"):
        SMOOTH.estimate_targets(mk.InputTimesGradient(waves()), X, [2, 1], budget=BUDGET, rng=0)


def test_the_largest_outputs_on_the_clean_input_are_found():
    oracle = bank()
    order = np.argsort(-oracle.predict(X[None])[0])
    estimates = SMOOTH.estimate_targets(oracle, X, mk.Top(3), budget=BUDGET, rng=0)
    assert [estimate.provenance["target"] for estimate in estimates] == order[:3].tolist()
    assert mk.Top(3).of(np.array([[1.0, 3.0], [3.0, 2.0]])) == [(0, 1), (1, 0), (1, 1)]


def test_an_estimate_tells_its_target_is_saved_and_is_gone_on_with(tmp_path):
    first, second = SMOOTH.estimate_targets(bank(), X, [3, 1], budget=BUDGET, rng=0)
    assert (first.provenance["target"], second.provenance["target"]) == (3, 1)
    assert first.provenance["targets"] == [3, 1]
    assert first.provenance["forward_passes"] == "shared by the targets"
    json.dumps(first.provenance)
    second.save(tmp_path / "second.npz")
    loaded = mk.Estimate.load(tmp_path / "second.npz")
    further = alone(bank(), 1, budget=mk.Evaluations(512), resume=loaded)
    assert bits(further) == bits(alone(bank(), 1, budget=mk.Evaluations(512)))
    with pytest.raises(ValueError, match="something else"):
        alone(bank(), 3, budget=mk.Evaluations(512), resume=loaded)


class StopsAtCall:
    """A bank in the middle of whose k-th forward pass Ctrl-C is pressed."""

    def __init__(self, k):
        self.left, self.bank = k, bank()

    def __repr__(self):
        return repr(self.bank)

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def value_and_gradient(self, points, **held):
        self._count()
        return self.bank.value_and_gradient(points, **held)

    def values_and_gradients(self, points, targets):
        self._count()
        return self.bank.values_and_gradients(points, targets)


def test_an_interrupt_carries_every_target_at_the_same_prefix():
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate_targets(StopsAtCall(4), X, [2, 0], budget=BUDGET, rng=0)
    assert caught.value.completed == ()
    assert caught.value.partial is caught.value.under_way[0]
    for target, partial in zip([2, 0], caught.value.under_way, strict=True):
        assert partial.stopped == "interrupted"
        assert bits(partial) == bits(alone(bank(), target, budget=mk.Evaluations(96)))


def test_an_interrupt_tells_the_targets_that_were_finished_from_those_that_were_not():
    budget = mk.RelativeError(0.05) | mk.Evaluations(1 << 14)
    whole = SMOOTH.estimate_targets(bank(), X, range(4), budget=budget, rng=0)
    first = min(estimate.n_evaluations for estimate in whole)
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate_targets(StopsAtCall(first // 32 + 2), X, range(4), budget=budget, rng=0)
    done = [estimate for estimate in whole if estimate.n_evaluations == first]
    assert all_bits(caught.value.completed) == all_bits(done)
    assert len(caught.value.under_way) == 4 - len(done) > 0
    assert {partial.n_evaluations for partial in caught.value.under_way} == {first + 32}


def test_an_interrupt_before_there_is_anything_has_nothing():
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate_targets(StopsAtCall(1), X, [2, 0], budget=BUDGET, rng=0)
    assert caught.value.partial is None


@pytest.mark.parametrize(
    ("oracle", "targets", "held", "error", "named"),
    [
        (bank(), [], {}, ValueError, "there are none"),
        (bank(), "top", {}, TypeError, "'top'"),
        (bank(), [1.5], {}, TypeError, "1.5"),
        (bank(), [-1], {}, ValueError, "-1"),
        (bank(), [1], {"target": 2}, ValueError, "'target'"),
        (bank(), mk.Top(9), {}, ValueError, "4 elements"),
        (waves(), [1], {}, TypeError, "Multitarget"),
        (Cubic(), mk.Top(1), {}, TypeError, "Multitarget"),
        (Powers({"a": np.ones(6)}), mk.Top(1), {}, TypeError, "predict"),
    ],
)
def test_what_cannot_be_is_refused_before_a_gradient(oracle, targets, held, error, named):
    with pytest.raises(error, match=named):
        SMOOTH.estimate_targets(oracle, X, targets, held=held, budget=BUDGET, rng=0)
    assert not getattr(oracle, "forward", ())


def test_top_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Top\(0\)"):
        mk.Top(0)


class Miscounts:
    """An oracle that leaves out what it was asked about."""

    def value_and_gradient(self, points, target):
        return bank().value_and_gradient(points, target=target)

    def values_and_gradients(self, points, targets):
        values, gradients = bank().values_and_gradients(points, targets)
        return values, gradients[:1]


def test_an_oracle_that_answers_about_fewer_targets_is_told():
    with pytest.raises(ValueError, match=r"1 targets .* 3 were asked for"):
        SMOOTH.estimate_targets(Miscounts(), X, [0, 1, 2], budget=BUDGET, rng=0)


def test_the_difference_of_two_targets_costs_one_forward_pass():
    def sides(oracle):
        return (mk.Side(SMOOTH, oracle, X, {"target": target}) for target in (1, 0))

    oracle = bank()
    together = mk.difference(*sides(oracle), budget=mk.Evaluations(512), rng=0)
    assert oracle.forward == [32] * 8
    assert oracle.backward == [2] * 8
    apart = mk.difference(
        mk.Side(SMOOTH, oracle, X, {"target": 1}),
        mk.Side(SMOOTH, bank(), X, {"target": 0}),
        budget=mk.Evaluations(512),
        rng=0,
    )
    assert bits(together) == bits(apart)
    assert bits(together.first) == bits(alone(bank(), 1))
    a, b = SMOOTH.estimate_targets(bank(), X, [1, 0], budget=BUDGET, rng=0)
    np.testing.assert_allclose(together.gradient, a.gradient - b.gradient, atol=1e-14)


def test_sides_that_differ_in_more_than_the_target_are_asked_apart():
    oracle = bank()
    other = mk.Pathwise(KERNEL, mk.Recentred(8), block=32)
    mk.difference(
        mk.Side(SMOOTH, oracle, X, {"target": 1}),
        mk.Side(other, oracle, X.copy(), {"target": 0}),
        budget=mk.Evaluations(512),
        rng=0,
    )
    assert oracle.backward == [1] * 16


class OneAtATime:
    """An oracle that tells of one target at a time."""

    def value_and_gradient(self, points, target):
        return bank().value_and_gradient(points, target=target)


def test_an_attribution_of_a_model_that_tells_of_one_target_at_a_time_is_asked_apart():
    def difference(oracle):
        per_sample = mk.InputTimesGradient(oracle)
        sides = (mk.Side(SMOOTH, per_sample, X, {"target": target}) for target in (1, 0))
        return mk.difference(*sides, budget=mk.Evaluations(512), rng=0)

    assert bits(difference(OneAtATime())) == bits(difference(bank()))
