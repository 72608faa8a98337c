"""What may be given as an input: dtypes, forms, held arrays, fixed coordinates; and that it is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mollikit as mk
from mollikit.testing import machine_epsilon
from tests.core.closed_forms import KERNELS, SAMPLERS, Cubic, Linear, Recording, waves

BUDGET = mk.Evaluations(512)
X = np.linspace(-1, 1, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_model_is_asked_in_the_inputs_own_precision(dtype, kernel, sampler):
    oracle = Recording(Cubic())
    x = X.astype(dtype)
    smooth = mk.Pathwise(kernel(0.5), sampler)
    estimate = smooth.estimate(oracle, x, budget=mk.Evaluations(1 << 12), rng=0)
    assert {points.dtype for points, _ in oracle.batches} == {x.dtype.newbyteorder("=")}
    assert estimate.gradient.dtype == np.float64
    truth = Cubic().smoothed_gradient(kernel(0.5), X, 0.5)
    # Six coordinates at 5 standard errors, and the rounding of the points in the input's precision.
    slack = 8 * machine_epsilon(np.float16 if x.dtype.itemsize == 2 else np.float32)
    assert (np.abs(estimate.gradient - truth) < 5 * estimate.standard_error + slack * truth.max()).all()


@given(shape=st.lists(st.integers(1, 4), max_size=4).map(tuple), sampler=st.sampled_from(SAMPLERS))
@settings(max_examples=40, deadline=None)
def test_an_input_of_any_shape_gives_a_gradient_of_that_shape(shape, sampler):
    x = np.full(shape, 0.5)
    estimate = mk.Pathwise(mk.Laplace(0.5), sampler).estimate(Cubic(), x, budget=BUDGET, rng=0)
    low, high = estimate.interval()
    assert (
        np.shape(estimate.gradient) == np.shape(estimate.standard_error) == low.shape == high.shape == shape
    )


def test_zero_widths_hold_their_coordinates():
    widths = np.array([0.5, 0, 0.2, 0, 0, 1.0])
    oracle = Recording(waves())
    estimate = mk.Pathwise(mk.Gaussian(widths), mk.Independent()).estimate(oracle, X, budget=BUDGET, rng=0)
    points = np.concatenate([batch for batch, _ in oracle.batches])
    np.testing.assert_array_equal(points[:, widths == 0], np.broadcast_to(X[widths == 0], (len(points), 3)))
    assert (points[:, widths > 0] != X[widths > 0]).all()
    assert (estimate.standard_error > 0).all()  # held coordinates have gradients that vary


def test_held_coordinates_are_not_seen_by_the_sampler():
    # Sobol's 21201 coordinates are those that move.
    x, widths = np.ones(30_000), np.zeros(30_000)
    widths[:5] = 1
    oracle = Recording(Linear(np.ones(30_000)))
    mk.Pathwise(mk.Uniform(widths), mk.Sobol(4)).estimate(oracle, x, budget=mk.Evaluations(32), rng=0)
    assert (oracle.batches[0][0][:, 5:] == 1).all()


class Mapped:
    """Several inputs: c is not smoothed."""

    def value_and_gradient(self, points):
        return points["a"].sum(1), {name: 2 * array for name, array in points.items()}


MAPPED = {
    "a": np.ones(3, np.float32),
    "b": np.full((2, 2), 5.0),
    "c": np.zeros(2, np.float16),
}


def test_a_mapping_has_a_kernel_for_each_input_that_moves_and_keeps_dtypes():
    oracle = Recording(Mapped())
    smooth = mk.Pathwise({"a": mk.Gaussian(0.1), "b": mk.Uniform(mk.OfMagnitude(0.1))}, mk.Recentred(4))
    estimate = smooth.estimate(oracle, MAPPED, budget=BUDGET, rng=0)
    for points, _ in oracle.batches:
        assert {name: array.dtype for name, array in points.items()} == {
            n: a.dtype for n, a in MAPPED.items()
        }
        assert (points["c"] == 0).all()
        assert (np.abs(points["b"] - 5) <= 0.5).all()
        assert points["b"].std() > 0.2
    assert {name: array.shape for name, array in estimate.gradient.items()} == {
        "a": (3,),
        "b": (2, 2),
        "c": (2,),
    }
    np.testing.assert_allclose(estimate.gradient["b"], 10, atol=5 * estimate.standard_error["b"].max())
    assert (estimate.standard_error["c"] == 0).all()


def test_one_kernel_serves_every_input_each_with_its_own_width():
    oracle = Recording(Mapped())
    inputs = {"a": np.array([0.0, 1.0]), "b": np.array([0.0, 100.0])}
    smooth = mk.Pathwise(mk.Uniform(mk.OfRange(0.1)), mk.Independent())
    smooth.estimate(oracle, inputs, budget=BUDGET, rng=0)
    points = {name: np.concatenate([batch[name] for batch, _ in oracle.batches]) for name in inputs}
    for name, width in (("a", 0.1), ("b", 10.0)):
        reach = np.abs(points[name] - inputs[name]).max()
        assert 0.9 * width < reach <= width * (1 + 1e-12)


def test_held_arrays_travel_with_every_row():
    class Held:
        def value_and_gradient(self, points, *, mask, target):
            assert mask.shape == (len(points), 6)
            assert target.shape == (len(points),)
            assert target.dtype == np.int64
            assert (target == 4).all()
            return points[:, 0], points * mask

    held = {"mask": np.array([1, 0, 1, 0, 1, 0]), "target": 4}
    estimate = mk.Pathwise(mk.Gaussian(0.1)).estimate(Held(), X, held=held, budget=BUDGET, rng=0)
    assert (estimate.gradient[1::2] == 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_read_only_strided_or_shared_are_left_alone(kernel):
    class Vandal(Cubic):
        def value_and_gradient(self, points):
            answer = super().value_and_gradient(points.copy())
            points[...] = np.nan
            return answer

    big = np.arange(48.0).reshape(6, 8) / 48
    strided, expected = big[::2, ::-3], big[::2, ::-3].copy()
    frozen = expected.copy()
    frozen.setflags(write=False)
    smooth = mk.Pathwise(kernel(0.5))
    runs = [smooth.estimate(Vandal(), x, budget=BUDGET, rng=0).gradient for x in (strided, frozen, expected)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    np.testing.assert_array_equal(strided, expected)
    np.testing.assert_array_equal(frozen, expected)


def test_lists_and_numbers_are_inputs():
    run = mk.Pathwise(mk.Gaussian(0.5)).estimate(waves(), X.tolist(), budget=BUDGET, rng=0)
    same = mk.Pathwise(mk.Gaussian(0.5)).estimate(waves(), X, budget=BUDGET, rng=0)
    np.testing.assert_array_equal(run.gradient, same.gradient)


def test_an_oracle_is_anchored_on_the_clean_input():
    class Anchoring:
        def anchored(self, inputs, **held):
            np.testing.assert_array_equal(inputs, X)
            assert held["target"] == 2
            return waves()

        def value_and_gradient(self, points, **held):
            raise AssertionError("the oracle that was not anchored is called")

    class Forgiving:
        def anchored(self, inputs, **held):
            return self

        def value_and_gradient(self, points, target):
            return waves().value_and_gradient(points)

    smooth = mk.Pathwise(mk.Gaussian(0.5))
    with pytest.raises(TypeError):
        smooth.estimate(Anchoring(), X, held={"target": 2}, budget=BUDGET, rng=0)
    anchored = smooth.estimate(Forgiving(), X, held={"target": 2}, budget=BUDGET, rng=0)
    np.testing.assert_array_equal(
        anchored.gradient, smooth.estimate(waves(), X, budget=BUDGET, rng=0).gradient
    )


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.5, np.full(3, 0.5)),
        (np.array([1.0, 0, 2]), [1, 0, 2]),
        (mk.OfRange(0.15), np.full(3, 0.15 * 5)),
        (mk.OfMagnitude(0.2), [0.2, 0.0, 0.8]),
    ],
    ids=str,
)
def test_scales_resolve_to_widths_in_the_inputs_units(scale, expected):
    np.testing.assert_allclose(mk.Gaussian(scale).widths(np.array([-1.0, 0.0, 4.0])), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_within_bounds_keeps_each_coordinate_inside_with_the_confidence(kernel, confidence):
    smooth_kernel = kernel(mk.WithinBounds(0.0, 1.0, confidence))
    x = np.array([0.1, 0.5, 1.0, 0.8])
    widths = smooth_kernel.widths(x)
    assert widths[2] == 0
    steps = smooth_kernel.inverse_cdf((np.arange(100_000) + 0.5) / 100_000)
    for coordinate, room in ((0, 0.1), (1, 0.5), (3, 0.2)):
        inside = (np.abs(steps * widths[coordinate]) <= room * (1 + 1e-12)).mean()
        assert inside == pytest.approx(confidence, abs=2e-5)


def test_within_bounds_with_certainty_for_a_compact_kernel():
    np.testing.assert_allclose(
        mk.Uniform(mk.WithinBounds(0, 1, 1)).widths(np.array([0.25, 0.5])), [0.25, 0.5]
    )
