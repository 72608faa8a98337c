from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mollikit as mk
from mollikit.budgets import Status
from mollikit.moments import Moments
from tests.core.closed_forms import SAMPLERS, Cubic, Recording, waves
from tests.core.test_determinism import bits

X = np.linspace(-1, 1, 6)


def real_rows(oracle, x=X):
    """Rows that are no padding: padding is the clean input."""
    return sum(int((points != x).any(1).sum()) for points, _ in oracle.batches)


@given(
    n=st.integers(512, 900),
    sampler=st.sampled_from(SAMPLERS),
    block=st.none() | st.integers(64, 300),
)
@settings(max_examples=60, deadline=None)
def test_evaluations_are_never_exceeded_and_rounded_down_to_whole_groups(n, sampler, block):
    oracle = Recording(waves())
    smooth = mk.Pathwise(mk.Gaussian(0.5), sampler, block=block)
    estimate = smooth.estimate(oracle, X, budget=mk.Evaluations(n), rng=0)
    group = sampler.group_size(6)
    assert estimate.n_evaluations == real_rows(oracle) == n // group * group
    assert estimate.stopped == f"Evaluations(n={n})"
    assert not estimate.partial


def test_a_resumed_budget_counts_from_the_start():
    smooth = mk.Pathwise(mk.Gaussian(0.5), block=16)
    first = smooth.estimate(waves(), X, budget=mk.Evaluations(64), rng=0)
    oracle = Recording(waves())
    assert smooth.estimate(oracle, X, budget=mk.Evaluations(48), rng=0, resume=first).n_evaluations == 64
    assert oracle.batches == []


@pytest.mark.parametrize("n", [1, 8, 15])
def test_fewer_than_two_groups_are_refused_before_the_model_is_called(n):
    oracle = Recording(waves())
    with pytest.raises(ValueError, match=r"groups of 8 points, and an error bar needs 2: give at least 16"):
        mk.Pathwise(mk.Gaussian(0.5)).estimate(oracle, X, budget=mk.Evaluations(n) | mk.Seconds(1))
    assert oracle.batches == []


@pytest.mark.parametrize("block", [1, 3, 5, 16, 24, 100])
def test_the_relative_error_is_looked_at_from_16_groups_and_at_doublings(block):
    looks, previous = [], 0
    for n in range(block, 1100, block):

        def moments(view, n=n):
            looks.append(n)
            return SimpleNamespace(relative_error=1.0)

        status = Status(n, previous, 8 * n, 1.0, n // block, moments)
        assert mk.RelativeError(0.5).reached(status) is None
        previous = n
    doublings = [16 << k for k in range(7)]
    assert looks == sorted({-(-d // block) * block for d in doublings if -(-d // block) * block < 1100})


def test_the_relative_error_stops_at_the_first_look_that_is_good_enough():
    smooth = mk.Pathwise(mk.Gaussian(0.5), mk.Independent(), block=1)
    run = smooth.estimate(waves(), X, budget=mk.RelativeError(10.0), rng=0)
    assert run.n_groups == 16
    errors = []
    tight = smooth.estimate(
        waves(), X, budget=mk.RelativeError(0.1), rng=0, progress=lambda p: errors.append(p.relative_error)
    )
    assert tight.n_groups in [16 << k for k in range(12)]
    looked_at = [errors[(16 << k) - 1] for k in range(12) if 16 << k <= tight.n_groups]
    assert looked_at[-1] <= 0.1 < min(looked_at[:-1])
    assert tight.stopped == "RelativeError(r=0.1, view=None)"


def test_the_relative_error_can_be_that_of_a_view():
    def run(budget):
        smooth = mk.Pathwise(mk.Gaussian(0.5), block=8)
        return smooth.estimate(waves(), X, budget=budget, views={"sum": mk.ChannelSum()}, rng=0)

    by_view = run(mk.RelativeError(0.2, view="sum"))
    assert by_view.views["sum"].relative_error <= 0.2
    assert by_view.n_evaluations != run(mk.RelativeError(0.2)).n_evaluations


def test_the_relative_error_takes_its_own_noise_away():
    values = np.random.default_rng(0).standard_normal((32, 500)) + 0.1
    moments = Moments.of(values)
    noise = (moments.standard_error**2).sum()
    expected = np.sqrt(noise / ((moments.mean**2).sum() - noise))
    np.testing.assert_allclose(moments.relative_error, expected)
    # The naive ratio |se| / |mean| saturates below 1 on pure noise; this one is infinite or large.
    pure = Moments.of(np.random.default_rng(1).standard_normal((32, 500)))
    assert pure.relative_error > 2
    assert Moments.of(values[:1]).relative_error == np.inf
    assert Moments.of(np.ones((4, 3))).relative_error == 0


def test_the_first_of_several_budgets_stops():
    smooth = mk.Pathwise(mk.Gaussian(0.5), block=64)
    first = smooth.estimate(
        waves(), X, budget=mk.RelativeError(1e-9) | mk.Seconds(1e3) | mk.Evaluations(500), rng=0
    )
    assert (first.stopped, first.n_evaluations) == ("Evaluations(n=500)", 496)
    second = smooth.estimate(waves(), X, budget=mk.Evaluations(10**6) | mk.RelativeError(1.0), rng=0)
    assert second.stopped == "RelativeError(r=1.0, view=None)"
    assert second.n_evaluations == 128


class SlowOracle:
    """An oracle of which each row takes a while, on a clock of its own."""

    def __init__(self, seconds_per_row):
        self.now, self.seconds_per_row = 0.0, seconds_per_row

    def perf_counter(self):
        return self.now

    def value_and_gradient(self, points):
        self.now += len(points) * self.seconds_per_row
        return Cubic().value_and_gradient(points)


@pytest.fixture
def timed(monkeypatch):
    def run(seconds_per_row, budget, **options):
        oracle = SlowOracle(seconds_per_row)
        clock = SimpleNamespace(perf_counter=oracle.perf_counter)
        monkeypatch.setattr("mollikit.engine.run.time", clock)
        monkeypatch.setattr("mollikit.estimators.blocks.time", clock)
        return mk.Pathwise(mk.Gaussian(0.5), **options).estimate(oracle, X, budget=budget, rng=0)

    return run


@pytest.mark.parametrize("seconds_per_row", [1e-3, 1e-2, 3e-2])
def test_seconds_stop_before_the_block_that_would_be_late(timed, seconds_per_row):
    estimate = timed(seconds_per_row, mk.Seconds(10))
    assert 9 <= estimate.seconds <= 10
    assert estimate.seconds + estimate.block * seconds_per_row > 10
    assert estimate.partial
    assert estimate.stopped == "Seconds(s=10)"
    assert estimate.provenance["n_evaluations"] == estimate.n_evaluations


def test_a_model_slower_than_the_time_still_gives_two_groups(timed):
    estimate = timed(100.0, mk.Seconds(1))
    assert estimate.n_groups == 2
    assert np.isfinite(estimate.standard_error).all()


def test_a_run_that_ends_before_its_seconds_is_not_partial(timed):
    estimate = timed(1e-3, mk.Seconds(10) | mk.Evaluations(64))
    assert (estimate.n_evaluations, estimate.partial) == (64, False)


def test_progress_is_told_after_each_block_and_ends_at_one():
    told = []
    smooth = mk.Pathwise(mk.Gaussian(0.5), block=16)
    smooth.estimate(waves(), X, budget=mk.Evaluations(80), rng=0, progress=told.append)
    assert [p.n_evaluations for p in told] == [16, 32, 48, 64, 80]
    assert [p.share for p in told] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [p.done for p in told] == [False] * 4 + [True]


def test_memory_is_flat_in_n():
    x = np.ones(1 << 15)

    def peak(n):
        smooth = mk.Pathwise(mk.Gaussian(0.5), block=32)
        tracemalloc.start()
        try:
            smooth.estimate(Cubic(), x, budget=mk.Evaluations(n), rng=0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64)
    few, many = peak(64), peak(1024)
    assert abs(many / few - 1) < 0.05
    assert many < 64 * x.nbytes * 8  # far from the 1024 rows that would be kept


class Limited:
    """An oracle whose memory holds so many rows."""

    def __init__(self, rows):
        self.rows = rows

    def __repr__(self):
        return repr(waves())

    def value_and_gradient(self, points):
        if len(points) > self.rows:
            raise MemoryError
        return waves().value_and_gradient(points)


def test_a_model_out_of_memory_gets_smaller_blocks_and_the_bits_of_a_run_with_them():
    def run(oracle, block, **options):
        smooth = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(4), block=block)
        return smooth.estimate(oracle, X, budget=mk.Evaluations(200), rng=0, **options)

    halved = run(Limited(10), 32)
    assert halved.block == halved.provenance["block"] == 8
    assert bits(halved) == bits(run(waves(), 8))
    # A resumed run begins anew as well: two blocks cannot have made one estimate.
    smooth = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(4), block=32)
    first = smooth.estimate(waves(), X, budget=mk.Evaluations(96), rng=0)
    assert bits(run(Limited(10), 32, resume=first)) == bits(halved)
    with pytest.raises(MemoryError):
        run(Limited(3), 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mk.Evaluations(0),
        lambda: mk.RelativeError(0),
        lambda: mk.RelativeError(float("nan")),
        lambda: mk.Seconds(-1),
        lambda: mk.Seconds(float("inf")),
    ],
)
def test_budgets_out_of_range_are_refused_by_name(make):
    with pytest.raises(ValueError, match=r"^(Evaluations|RelativeError|Seconds)\("):
        make()
