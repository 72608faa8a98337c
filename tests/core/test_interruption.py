from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mollikit as mk
from tests.core.closed_forms import Recording, waves
from tests.core.test_determinism import bits

X = np.linspace(-1, 1, 6)
SMOOTH = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(8), block=16)  # two groups in a block
BUDGET = mk.Evaluations(400)


class StopsAtCall:
    """An oracle in the middle of whose k-th call Ctrl-C is pressed."""

    def __init__(self, k):
        self.left = k

    def __repr__(self):
        return repr(waves())

    def value_and_gradient(self, points):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return waves().value_and_gradient(points)


def prefix(n):
    return SMOOTH.estimate(waves(), X, budget=mk.Evaluations(n), rng=0)


@pytest.mark.parametrize("call", [2, 4, 25])
@pytest.mark.parametrize("workers", [None, 1])
def test_an_interrupt_carries_the_estimate_of_the_blocks_before_it(call, workers):
    executor = None if workers is None else ThreadPoolExecutor(workers)
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(StopsAtCall(call), X, budget=BUDGET, rng=0, executor=executor)
    partial = caught.value.partial
    assert bits(partial) == bits(prefix(16 * (call - 1)))
    assert partial.partial
    assert partial.stopped == "interrupted"
    assert f"after {partial.n_evaluations} evaluations" in str(caught.value)
    assert isinstance(caught.value, KeyboardInterrupt)


def test_with_several_workers_the_partial_estimate_is_a_prefix():
    with ThreadPoolExecutor(3) as executor, pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(StopsAtCall(12), X, budget=BUDGET, rng=0, executor=executor)
    partial = caught.value.partial
    assert partial.n_evaluations >= 16 * (12 - 3)
    assert bits(partial) == bits(prefix(partial.n_evaluations))


def test_an_interrupted_run_can_be_gone_on_with():
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(StopsAtCall(7), X, budget=BUDGET, rng=0)
    whole = SMOOTH.estimate(waves(), X, budget=BUDGET, rng=0, resume=caught.value.partial)
    assert bits(whole) == bits(prefix(400))
    assert not whole.partial


def test_an_interrupt_in_a_resumed_run_keeps_what_it_began_with():
    first = prefix(48)
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(StopsAtCall(1), X, budget=BUDGET, rng=0, resume=first)
    assert bits(caught.value.partial) == bits(first)


def test_an_interrupt_by_the_progress_callback_keeps_that_block():
    def stop(progress):
        if progress.n_evaluations == 64:
            raise KeyboardInterrupt

    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(waves(), X, budget=BUDGET, rng=0, progress=stop)
    assert bits(caught.value.partial) == bits(prefix(64))


@pytest.mark.parametrize("budget", [BUDGET, mk.Seconds(5)], ids=str)
def test_an_interrupt_before_two_groups_carries_nothing(budget):
    # By the clock, the first call is the one that is timed; it is interrupted like any other.
    free = mk.Pathwise(mk.Gaussian(0.5))
    with pytest.raises(mk.Interrupted, match="before there was anything to keep") as caught:
        free.estimate(StopsAtCall(1), X, budget=budget, rng=0)
    assert caught.value.partial is None


class InterruptedAnchoring(Recording):
    def anchored(self, inputs, **held):
        raise KeyboardInterrupt


def test_an_interrupt_while_the_oracle_chooses_its_target():
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate(InterruptedAnchoring(waves()), X, budget=BUDGET)
    assert caught.value.partial is None


@pytest.mark.parametrize(("call", "rows_done", "n"), [(28, 1, 32), (51, 2, None), (60, 2, 144)])
def test_in_a_batch_the_finished_rows_are_carried_too(call, rows_done, n):
    rows = np.stack([X, X + 1, X + 2])  # 25 calls each
    with pytest.raises(mk.Interrupted) as caught:
        SMOOTH.estimate_batch(StopsAtCall(call), rows, budget=BUDGET, rng=5)
    partial, completed = caught.value.partial, caught.value.completed
    assert len(completed) == rows_done
    for k, estimate in enumerate(completed):
        assert bits(estimate) == bits(SMOOTH.estimate(waves(), rows[k], budget=BUDGET, rng=(5, k)))
    if n is None:
        assert partial is None
    else:
        part = SMOOTH.estimate(waves(), rows[rows_done], budget=mk.Evaluations(n), rng=(5, rows_done))
        assert bits(partial) == bits(part)


def test_other_errors_of_the_oracle_pass_through():
    class Broken:
        def value_and_gradient(self, points):
            raise RuntimeError("the endpoint is gone")

    for executor in (None, ThreadPoolExecutor(2)):
        with pytest.raises(RuntimeError, match="the endpoint is gone"):
            SMOOTH.estimate(Broken(), X, budget=BUDGET, executor=executor)


def test_an_interrupt_crosses_to_another_process_with_what_it_carries():
    estimate = prefix(64)
    crossed = pickle.loads(pickle.dumps(mk.Interrupted(estimate, [estimate])))
    np.testing.assert_array_equal(crossed.partial.gradient, estimate.gradient)
    assert len(crossed.completed) == 1
    assert str(crossed) == str(mk.Interrupted(estimate))
