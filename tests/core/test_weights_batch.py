"""Rows of a batch whose weights are smoothed advance together, under models that are drawn once for all."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import mollikit as mk
from mollikit.estimators import rows as rows_module
from mollikit.estimators import weights as module
from tests.core.test_determinism import Permuting, bits
from tests.core.test_weights import Wide
from tests.core.weighted_forms import Cubes, cubes

LAW = mk.Gaussian(mk.OfMagnitude(0.2))
X = np.linspace(-1, 1, 6)
ROWS = np.stack([X, X + 1, -X, 3 * X])
BOTH = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(4), weights=LAW, block=64)
ALONE = mk.Pathwise(weights=LAW, weights_sampler=mk.Recentred(4), block=64)
# At these errors the rows stop at different times.
ERRORS = mk.RelativeError(0.05), mk.RelativeError(0.015)

either = pytest.mark.parametrize("smooth", [BOTH, ALONE], ids=["both", "weights"])
with_errors = pytest.mark.parametrize(
    ("smooth", "error"), [(BOTH, ERRORS[0]), (ALONE, ERRORS[1])], ids=["both", "weights"]
)


def net(kind=Cubes):
    return kind(cubes().weights)


def one(smooth, k, budget, **options):
    return smooth.estimate(net(), ROWS[k], budget=budget, rng=(9, k), **options)


@pytest.fixture
def drawn(monkeypatch):
    """Models in the order in which they are drawn, by group and member."""
    found, model = [], module.ModelGroup.model
    monkeypatch.setattr(
        module.ModelGroup,
        "model",
        lambda self, member: found.append((self._group, member)) or model(self, member),
    )
    return found


@either
def test_a_model_is_drawn_once_for_all_rows(smooth, drawn):
    budget = mk.Evaluations(256)
    batch = smooth.estimate_batch(net(), ROWS, budget=budget, rng=9)
    per_group = 2 if smooth is BOTH else 4
    assert drawn == [(group, member) for group in range(batch[0].n_groups) for member in range(per_group)]
    for k, estimate in enumerate(batch):
        assert bits(estimate) == bits(one(smooth, k, budget))


@with_errors
def test_each_row_stops_by_itself_and_costs_nothing_afterwards(smooth, error, drawn):
    asked = []

    class Counting(Cubes):
        def value_and_gradient(self, points):
            asked.append(len(points))
            return super().value_and_gradient(points)

    batch = smooth.estimate_batch(net(Counting), ROWS, budget=error, rng=9)
    assert len({estimate.n_evaluations for estimate in batch}) > 1
    assert sum(asked) == sum(estimate.n_evaluations for estimate in batch)
    assert len(drawn) == max(estimate.n_groups for estimate in batch) * (2 if smooth is BOTH else 4)
    for k, estimate in enumerate(batch):
        single = one(smooth, k, error)
        assert bits(estimate) == bits(single)
        assert estimate.stopped == single.stopped


@with_errors
def test_executors_do_not_change_the_bits(smooth, error):
    expected = [bits(each) for each in smooth.estimate_batch(net(), ROWS, budget=error, rng=9)]
    for executor in (ThreadPoolExecutor(1), ThreadPoolExecutor(5), Permuting(2)):
        with executor:
            batch = smooth.estimate_batch(net(), ROWS, budget=error, rng=9, executor=executor, in_flight=5)
        assert [bits(estimate) for estimate in batch] == expected


@either
def test_as_many_rows_advance_together_as_fit_memory(smooth, drawn, monkeypatch):
    budget = mk.Evaluations(256)
    expected = [bits(each) for each in smooth.estimate_batch(net(), ROWS, budget=budget, rng=9)]
    once = len(drawn)
    monkeypatch.setattr(rows_module, "_TOGETHER", 3 * 64 * X.size)  # three blocks of 64 points
    batch = smooth.estimate_batch(net(), ROWS, budget=budget, rng=9)
    assert len(drawn) == 3 * once
    assert [bits(estimate) for estimate in batch] == expected


def test_rows_with_groups_of_other_sizes_are_estimated_all_the_same():
    # Up to 32 moving coordinates Sobol's nets are larger, and zeros do not move under OfMagnitude.
    wide = np.linspace(1, 2, 33)
    rows = np.stack([wide, np.where(np.arange(33) == 3, 0, wide), wide + 1])
    smooth, budget = (
        mk.Pathwise(mk.Gaussian(mk.OfMagnitude(0.3)), mk.Sobol(), weights=LAW),
        mk.Evaluations(1024),
    )
    batch = smooth.estimate_batch(cubes(33), rows, budget=budget, rng=2)
    assert [estimate.group_size for estimate in batch] == [32, 128, 32]
    for k, row in enumerate(rows):
        assert bits(batch[k]) == bits(smooth.estimate(cubes(33), row, budget=budget, rng=(2, k)))


@either
def test_each_row_has_its_own_target_views_and_provenance(smooth):
    class Scaled(Cubes):
        def value_and_gradient(self, points, *, target):
            value, gradient = super().value_and_gradient(points)
            return value * target, gradient * target[:, None]

    views, budget, targets = (
        {"sum": lambda g: g.sum(-1)},
        mk.Evaluations(256),
        np.array([1.0, 2.0, -3.0, 1.0]),
    )
    options = {"views": views, "budget": budget}
    batch = smooth.estimate_batch(net(Scaled), ROWS, held={"target": targets}, rng=1, **options)
    for k, row in enumerate(ROWS):
        single = smooth.estimate(net(Scaled), row, held={"target": targets[k]}, rng=(1, k), **options)
        assert bits(batch[k]) == bits(single)
        assert batch[k].provenance == single.provenance


def test_a_row_of_a_batch_is_gone_on_with_by_itself():
    half = BOTH.estimate_batch(net(), ROWS, budget=mk.Evaluations(128), rng=9)[2]
    assert bits(one(BOTH, 2, mk.Evaluations(512), resume=half)) == bits(one(BOTH, 2, mk.Evaluations(512)))


@with_errors
@pytest.mark.parametrize("workers", [None, 1])
def test_an_interrupt_carries_the_finished_rows_and_those_under_way(smooth, error, workers):
    batch = smooth.estimate_batch(net(), ROWS, budget=error, rng=9)
    first = min(estimate.n_evaluations for estimate in batch)
    early = {k for k, estimate in enumerate(batch) if estimate.n_evaluations == first}
    left = [len(ROWS) * first + (len(ROWS) - len(early)) * 64 + 10]  # in the second block without those

    class Cubes(type(net())):  # of the same name as the oracle that is not interrupted
        def value_and_gradient(self, points):
            left[0] -= len(points)
            if left[0] < 0:
                raise KeyboardInterrupt
            return super().value_and_gradient(points)

    executor = None if workers is None else ThreadPoolExecutor(workers)
    options = {"executor": executor, "in_flight": 1}
    with pytest.raises(mk.Interrupted) as caught:
        smooth.estimate_batch(net(Cubes), ROWS, budget=error, rng=9, **options)
    finished = {estimate.provenance["item"]: estimate for estimate in caught.value.completed}
    under_way = {estimate.provenance["item"]: estimate for estimate in caught.value.under_way}
    assert set(finished) == early
    assert set(under_way) == set(range(len(ROWS))) - early
    assert caught.value.partial is caught.value.under_way[0]
    for k, estimate in finished.items():
        assert bits(estimate) == bits(batch[k])
        assert estimate.stopped == batch[k].stopped
    for k, estimate in under_way.items():
        assert (estimate.n_evaluations, estimate.stopped) == (first + 64, "interrupted")
        assert bits(estimate) == bits(one(smooth, k, mk.Evaluations(first + 64)))
        assert bits(one(smooth, k, error, resume=estimate)) == bits(batch[k])


def test_an_interrupt_after_the_last_row_is_not_lost():
    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    budget = mk.Evaluations(256)
    with pytest.raises(mk.Interrupted) as caught:
        BOTH.estimate_batch(net(), ROWS, budget=budget, rng=9, progress=stop)
    assert [bits(each) for each in caught.value.completed] == [
        bits(each) for each in BOTH.estimate_batch(net(), ROWS, budget=budget, rng=9)
    ]
    assert caught.value.under_way == ()
    assert caught.value.partial is None


def test_progress_is_that_of_all_rows():
    told = []
    batch = BOTH.estimate_batch(net(), ROWS, budget=ERRORS[0], rng=9, progress=told.append)
    assert [each.done for each in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].n_evaluations == sum(estimate.n_evaluations for estimate in batch)
    assert told[-1].share == 1.0
    # A block's time is shared out among the rows that it was evaluated for.
    assert sum(estimate.seconds for estimate in batch) == pytest.approx(told[-1].seconds)


def test_seconds_are_those_of_each_row(monkeypatch):
    class Slow(Cubes):
        now = 0.0

        def value_and_gradient(self, points):
            Slow.now += 0.01 * len(points)
            return super().value_and_gradient(points)

    clock = SimpleNamespace(perf_counter=lambda: Slow.now)
    monkeypatch.setattr("mollikit.engine.run.time", clock)
    monkeypatch.setattr("mollikit.estimators.blocks.time", clock)
    batch = BOTH.estimate_batch(net(Slow), ROWS, budget=mk.Seconds(10), rng=9)
    assert all(9 <= estimate.seconds <= 10 for estimate in batch)
    assert 36 <= Slow.now <= 40


def test_memory_that_runs_out_halves_the_calls_for_all_rows():
    class Small(Cubes):
        def value_and_gradient(self, points):
            if len(points) > 3:
                raise MemoryError
            return super().value_and_gradient(points)

    batch = BOTH.estimate_batch(net(Small), ROWS, budget=mk.Evaluations(64), rng=3)
    free = BOTH.estimate_batch(net(), ROWS, budget=mk.Evaluations(64), rng=3)
    for small, large in zip(batch, free, strict=True):
        assert small.block <= 3
        np.testing.assert_allclose(small.gradient, large.gradient, rtol=1e-12)


def test_no_more_than_one_replica_is_held_whatever_the_rows_and_n(monkeypatch):
    monkeypatch.setattr(module, "_HELD", 0)
    oracle = Wide({str(k): np.ones((256, 256), np.float32) for k in range(16)})
    smooth = mk.Pathwise(weights=LAW)

    def peak(rows, n):
        tracemalloc.start()
        smooth.estimate_batch(oracle, np.ones((rows, 4)), budget=mk.Evaluations(n), rng=0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    tensor = 1 << 18
    few, rows, long = peak(2, 8), peak(8, 8), peak(2, 24)
    assert few < (16 + 2 + 8) * tensor
    assert abs(rows - few) < tensor
    assert abs(long - few) < tensor


def test_an_input_that_cannot_be_is_named_by_its_row_before_anything_is_drawn(drawn):
    with pytest.raises(ValueError, match="row 1: "):
        mk.Pathwise(mk.Gaussian(mk.OfMagnitude(0.1)), weights=LAW).estimate_batch(
            net(), np.stack([X, 0 * X]), budget=mk.Evaluations(256), rng=0
        )
    assert not drawn
