"""The bits of an estimate depend on (rng, input, scheme, block, N) alone."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals, Uniforms
from tests.core.closed_forms import SAMPLERS, Recording, waves

X = np.linspace(-1, 1, 6)
ORACLE = waves()
SMOOTH = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(4), block=32)
# 250 groups in blocks of 8: the last block is padded.
BUDGET = mk.Evaluations(1000)


def bits(estimate):
    tally = estimate.tally
    moments = [tally.gradient, *tally.views.values(), tally.output]
    return b"".join(part.tobytes() for m in moments for part in (m.mean, m.m2)), estimate.n_evaluations


@pytest.fixture(scope="module")
def expected():
    return bits(SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3))


class Permuting(Executor):
    """Runs what was submitted only when a result is waited for, in an order of its own."""

    def __init__(self, seed):
        self.rng, self.pending, self.orders = np.random.default_rng(seed), [], []

    def submit(self, task, /, *arguments):
        executor = self

        class Waited(Future):
            def result(self, timeout=None):
                executor.run()
                return super().result(timeout)

        future = Waited()
        self.pending.append((future, task, arguments))
        return future

    def run(self):
        pending, self.pending = self.pending, []
        order = self.rng.permutation(len(pending))
        if (np.diff(order) > 0).all():
            order = order[::-1]
        self.orders.append(order)
        for k in order:
            future, task, arguments = pending[k]
            future.set_result(task(*arguments))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("in_flight", [1, 2, 4, 7, None])
def test_threads_do_not_change_the_bits(expected, workers, in_flight):
    with ThreadPoolExecutor(workers) as executor:
        run = SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3, executor=executor, in_flight=in_flight)
    assert bits(run) == expected


def test_processes_do_not_change_the_bits(expected):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        run = SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3, executor=executor)
    assert bits(run) == expected


@pytest.mark.parametrize("in_flight", range(1, 8))
def test_the_order_of_arrival_does_not_change_the_bits(expected, in_flight):
    executor = Permuting(in_flight)
    run = SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3, executor=executor, in_flight=in_flight)
    assert bits(run) == expected
    shuffled = any((np.diff(order) < 0).any() for order in executor.orders)
    assert shuffled == (in_flight > 1)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_stop_by_relative_error_is_the_same_with_executors(sampler):
    smooth = mk.Pathwise(mk.Gaussian(0.5), sampler, block=64)
    options = {"budget": mk.RelativeError(0.03), "rng": 4}
    alone = smooth.estimate(ORACLE, X, **options)
    assert alone.relative_error <= 0.03
    for executor in (Permuting(1), ThreadPoolExecutor(3)):
        with executor:
            assert bits(smooth.estimate(ORACLE, X, executor=executor, **options)) == bits(alone)


def test_a_resumed_run_is_the_run_in_one_go(expected):
    half = SMOOTH.estimate(ORACLE, X, budget=mk.Evaluations(320), rng=3)
    oracle = Recording(ORACLE)
    whole = SMOOTH.estimate(oracle, X, budget=BUDGET, rng=3, resume=half)
    assert bits(whole) == expected
    assert sum((points != X).any(1).sum() for points, _ in oracle.batches) == 1000 - 320


def test_a_run_resumed_inside_a_block_has_the_same_points_if_not_the_same_bits(expected):
    cut = SMOOTH.estimate(ORACLE, X, budget=mk.Evaluations(100), rng=3)
    whole = SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3, resume=cut)
    straight = SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=3)
    np.testing.assert_allclose(whole.gradient, straight.gradient, rtol=1e-12)
    np.testing.assert_allclose(whole.standard_error, straight.standard_error, rtol=1e-12)


def test_a_resumed_run_keeps_its_block():
    first = SMOOTH.estimate(ORACLE, X, budget=mk.Evaluations(320), rng=3)
    free = mk.Pathwise(SMOOTH.inputs, SMOOTH.sampler)
    assert free.estimate(ORACLE, X, budget=BUDGET, rng=3, resume=first).block == 32
    other = mk.Pathwise(SMOOTH.inputs, SMOOTH.sampler, block=64)
    with pytest.raises(ValueError, match="block: 32 then, 64 now"):
        other.estimate(ORACLE, X, budget=BUDGET, rng=3, resume=first)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"rng": 4}, "seed"), ({"inputs": X + 1}, "inputs"), ({"views": {"sum": mk.ChannelSum()}}, "views")],
)
def test_an_estimate_of_something_else_is_not_resumed(change, named):
    first = SMOOTH.estimate(ORACLE, X, budget=mk.Evaluations(320), rng=3)
    arguments = {"inputs": X, "rng": 3} | change
    with pytest.raises(ValueError, match=f"something else .*{named}: "):
        SMOOTH.estimate(ORACLE, budget=BUDGET, resume=first, **arguments)


def test_a_batchs_row_is_the_single_estimate():
    class Targeted:
        def value_and_gradient(self, points, *, target):
            value, gradient = ORACLE.value_and_gradient(points)
            return value * target, gradient * target[:, None]

    rows, targets = np.stack([X, X + 1, -X]), np.array([1.0, 2.0, -3.0])
    batch = SMOOTH.estimate_batch(Targeted(), rows, held={"target": targets}, budget=BUDGET, rng=9)
    for k, row in enumerate(rows):
        one = SMOOTH.estimate(Targeted(), row, held={"target": targets[k]}, budget=BUDGET, rng=(9, k))
        assert bits(batch[k]) == bits(one)
    assert len({bits(estimate) for estimate in batch}) == 3


def test_rows_of_a_batch_stop_by_themselves():
    rows = np.stack([X, np.full(6, 1e-3)])
    budget = mk.RelativeError(0.05) | mk.Evaluations(1 << 14)
    batch = SMOOTH.estimate_batch(ORACLE, rows, budget=budget, rng=9)
    assert batch[0].n_evaluations != batch[1].n_evaluations
    for k, row in enumerate(rows):
        assert bits(batch[k]) == bits(SMOOTH.estimate(ORACLE, row, budget=budget, rng=(9, k)))


def test_seeds_and_items_differ():
    runs = [SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=rng) for rng in (3, 4, (3, 1), (4, 1))]
    assert len({bits(run) for run in runs}) == 4
    # Without a seed one is drawn and recorded, with which the run can be had again.
    first, second = (SMOOTH.estimate(ORACLE, X, budget=BUDGET) for _ in range(2))
    assert bits(first) != bits(second)
    assert bits(SMOOTH.estimate(ORACLE, X, budget=BUDGET, rng=first.provenance["seed"])) == bits(first)


def test_the_recorded_block_and_evaluations_repeat_a_run_by_the_clock():
    free = mk.Pathwise(mk.Gaussian(0.5))
    timed = free.estimate(ORACLE, X, budget=mk.Seconds(0.02), rng=3)
    again = mk.Pathwise(mk.Gaussian(0.5), block=timed.block)
    assert bits(again.estimate(ORACLE, X, budget=mk.Evaluations(timed.n_evaluations), rng=3)) == bits(timed)


@given(block=st.integers(8, 200), n=st.integers(16, 300), sampler=st.sampled_from(SAMPLERS[:4]))
@settings(max_examples=30, deadline=None)
def test_the_points_do_not_depend_on_the_block(block, n, sampler):
    def asked(block):
        oracle = Recording(ORACLE)
        smooth = mk.Pathwise(mk.Logistic(0.5), sampler, block=block)
        run = smooth.estimate(oracle, X, budget=mk.Evaluations(max(n, 32)), rng=1)
        assert {len(points) for points, _ in oracle.batches} == {run.block}
        return np.concatenate([points for points, _ in oracle.batches])[: run.n_evaluations]

    np.testing.assert_array_equal(asked(max(block, 16)), asked(32))


def test_the_streams_are_what_they_were():
    # Philox's words are fixed by its definition; normals by NumPy's ziggurat, which NumPy may change
    # between versions (NEP 19): if only the second line fails on a new NumPy, write the new digest down.
    def digest(sampler, view, dtype):
        points = Key(2024, 7).groups(sampler, 3, 9, (5,), np.dtype(dtype), view).values
        return hashlib.sha256(points.tobytes()).hexdigest()[:16]

    assert digest(mk.Antithetic(), Uniforms, float) == "2fcfc85c67895001"
    assert digest(mk.Independent(), Normals, np.float32) == "7221890eed13eed5"
