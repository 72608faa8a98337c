"""With weights smoothed too, the bits depend on (rng, input, scheme, block, N) alone."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals, Uniforms
from tests.core.test_determinism import Permuting, bits
from tests.core.weighted_forms import Product, cubes, product

X = np.linspace(-1, 1, 6)
LAW = mk.Gaussian(mk.OfMagnitude(0.2))
BOTH = mk.Pathwise(mk.Gaussian(0.5), mk.Recentred(4), weights=LAW, block=64)
ALONE = mk.Pathwise(weights=LAW, weights_sampler=mk.Recentred(4), block=64)
# Blocks of 8 groups; the last one is cut.
BUDGET = mk.Evaluations(1000)

either = pytest.mark.parametrize("smooth", [BOTH, ALONE], ids=["both", "weights"])


@either
def test_executors_and_the_order_of_arrival_do_not_change_the_bits(smooth):
    expected = bits(smooth.estimate(cubes(), X, budget=BUDGET, rng=3))
    for executor in (ThreadPoolExecutor(1), ThreadPoolExecutor(5), Permuting(2)):
        with executor:
            run = smooth.estimate(cubes(), X, budget=BUDGET, rng=3, executor=executor, in_flight=5)
        assert bits(run) == expected


@either
def test_processes_do_not_change_the_bits(smooth):
    budget = mk.Evaluations(256)
    expected = bits(smooth.estimate(cubes(), X, budget=budget, rng=3))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert bits(smooth.estimate(cubes(), X, budget=budget, rng=3, executor=executor)) == expected


@either
def test_a_resumed_run_is_the_run_in_one_go(smooth):
    half = smooth.estimate(cubes(), X, budget=mk.Evaluations(512), rng=3)
    whole = smooth.estimate(cubes(), X, budget=BUDGET, rng=3, resume=half)
    assert bits(whole) == bits(smooth.estimate(cubes(), X, budget=BUDGET, rng=3))
    assert whole.block == 64
    with pytest.raises(ValueError, match=r"something else .*weights: "):
        smooth.estimate(cubes(seed=1), X, budget=BUDGET, rng=3, resume=half)


@either
def test_an_estimate_goes_on_after_it_was_saved(smooth, tmp_path):
    smooth.estimate(cubes(), X, budget=mk.Evaluations(512), rng=3).save(tmp_path / "half.npz")
    half = mk.Estimate.load(tmp_path / "half.npz")
    whole = smooth.estimate(cubes(), X, budget=BUDGET, rng=3, resume=half)
    assert bits(whole) == bits(smooth.estimate(cubes(), X, budget=BUDGET, rng=3))


@either
def test_the_recorded_block_repeats_a_run(smooth):
    free = mk.Pathwise(
        smooth.inputs, smooth.sampler, weights=smooth.weights, weights_sampler=smooth.weights_sampler
    )
    for budget in (mk.Seconds(0.05), mk.Evaluations(700)):
        first = free.estimate(cubes(), X, budget=budget, rng=3)
        again = mk.Pathwise(
            smooth.inputs,
            smooth.sampler,
            weights=smooth.weights,
            weights_sampler=smooth.weights_sampler,
            block=first.block,
        )
        repeated = again.estimate(cubes(), X, budget=mk.Evaluations(first.n_evaluations), rng=3)
        assert bits(repeated) == bits(first)


class Watching(Product):
    """Keeps the models and the points that it was asked about, in order; all its copies share the lists."""

    models, points = [], []

    def value_and_gradient(self, points):
        self.models.append(self.weights["W"].tobytes())
        self.points.append(points.tobytes())
        return super().value_and_gradient(points)


@either
def test_rows_of_a_batch_see_the_same_models_and_points_of_their_own(smooth):
    rows = np.stack([X, X + 1, -X])
    net = Watching({"W": product(6).weights["W"]})
    Watching.models.clear()
    Watching.points.clear()
    smooth.estimate_batch(net, rows, budget=mk.Evaluations(256), rng=9)
    # The rows one after the other under each model.
    models = np.array(Watching.models).reshape(-1, 3).T
    points = np.array(Watching.points).reshape(-1, 3).T
    assert (models == models[0]).all(), "each row saw models of its own"
    assert len(set(models[0])) == models.shape[1]
    if smooth.inputs is not None:
        assert not set(points[0]) & set(points[1])


def test_the_models_depend_on_the_seed():
    runs = [ALONE.estimate(cubes(), X, budget=BUDGET, rng=rng) for rng in (3, 4)]
    assert bits(runs[0]) != bits(runs[1])
    # Without inputs smoothed the item says nothing: it numbers the rows, which see the same models.
    assert bits(ALONE.estimate(cubes(), X, budget=BUDGET, rng=(3, 5))) == bits(runs[0])


@either
def test_the_models_do_not_depend_on_the_block(smooth):
    def asked(block):
        Watching.models.clear()
        net = Watching({"W": product(6).weights["W"]})
        mk.Pathwise(
            smooth.inputs,
            smooth.sampler,
            weights=smooth.weights,
            weights_sampler=smooth.weights_sampler,
            block=block,
        ).estimate(net, X, budget=mk.Evaluations(128), rng=1)
        return list(dict.fromkeys(Watching.models))

    assert asked(8) == asked(24) == asked(128)


@either
def test_an_interrupt_keeps_the_prefix(smooth):
    class Interrupting(Product):
        calls = [0]  # noqa: RUF012 - shared by its copies

        def value_and_gradient(self, points):
            self.calls[0] += 1
            if self.calls[0] > 150:
                raise KeyboardInterrupt
            return super().value_and_gradient(points)

    net = Interrupting({"W": product(6).weights["W"]})
    with pytest.raises(mk.Interrupted) as interrupt:
        smooth.estimate(net, X, budget=BUDGET, rng=3)
    partial = interrupt.value.partial
    n = partial.n_evaluations
    plain = Product(net.weights)
    assert bits(partial) == bits(smooth.estimate(plain, X, budget=mk.Evaluations(n), rng=3))


def test_memory_that_runs_out_halves_the_calls():
    class Small(Product):
        def value_and_gradient(self, points):
            if len(points) > 3:
                raise MemoryError
            return super().value_and_gradient(points)

    net = Small({"W": product(6).weights["W"]})
    estimate = BOTH.estimate(net, X, budget=mk.Evaluations(64), rng=3)
    assert estimate.block <= 3
    free = BOTH.estimate(Product(net.weights), X, budget=mk.Evaluations(64), rng=3)
    np.testing.assert_allclose(estimate.gradient, free.gradient, rtol=1e-12)


def test_the_streams_are_what_they_were():
    # As for the inputs' streams: if only the second line fails on a new NumPy, write the new digest down.
    def digest(sampler, view, dtype):
        points = Key(2024, 7).of_weights(sampler, "layer.weight", 3, (5,), np.dtype(dtype), view).values
        return hashlib.sha256(points.tobytes()).hexdigest()[:16]

    assert digest(mk.Antithetic(), Uniforms, float) == "0fb0fe411ac4ef4c"
    assert digest(mk.Independent(), Normals, np.float32) == "8c7025b2d2bb5be0"
