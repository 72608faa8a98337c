"""Each error names the culprit and the mend, before the model is called."""

from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk
from tests.core.closed_forms import Cubic

X = np.linspace(-1, 1, 6)
NAN, INFINITE = X.copy(), X.copy()
NAN[[1, 4]], INFINITE[3] = np.nan, -np.inf
BUDGET = mk.Evaluations(64)
GAUSSIAN = mk.Gaussian(0.5)


class Untouchable:
    def value_and_gradient(self, points, **held):
        raise AssertionError("the model was called")


CASES = {
    "NaN": (GAUSSIAN, NAN, r"the input holds 2 values that are NaN or infinite, the first at index \(1,\)"),
    "infinite": (GAUSSIAN, INFINITE, r"the input holds 1 values .* index \(3,\)"),
    "NaN in a named input": (GAUSSIAN, {"a": X, "b": NAN}, "input 'b' holds 2 values"),
    "empty": (GAUSSIAN, np.ones((3, 0)), r"the input is empty \(shape \(3, 0\)\)"),
    "empty mapping": (GAUSSIAN, {}, "mapping of inputs is empty"),
    "integers": (GAUSSIAN, np.arange(3), "dtype int64, which cannot be smoothed: cast it .* held="),
    "named integers": (GAUSSIAN, {"ids": np.arange(3)}, "input 'ids' has dtype int64"),
    "booleans": (GAUSSIAN, np.ones(3, bool), "dtype bool"),
    "complex": (GAUSSIAN, np.ones(3, complex), "dtype complex128"),
    "strings": (GAUSSIAN, np.array(["a"]), "dtype <U1"),
    "objects": (GAUSSIAN, np.array([None]), "dtype object"),
    "longdouble": (GAUSSIAN, X.astype(np.longdouble), "cast it to float64"),
    "scale of another shape": (mk.Gaussian(np.ones(5)), X, r"scale has shape \(5,\), .* the input's \(6,\)"),
    "scale of more axes": (mk.Gaussian(np.ones((2, 6))), X, r"scale has shape \(2, 6\)"),
    "constant image": (
        mk.Gaussian(mk.OfRange(0.1)),
        np.ones(4),
        r"OfRange\(fraction=0.1\) is zero for every",
    ),
    "black image": (mk.Gaussian(mk.OfMagnitude(0.1)), np.zeros(4), "is zero for every coordinate"),
    "out of bounds": (
        mk.Gaussian(mk.WithinBounds(0, 1)),
        np.array([[0.5, 0.5], [1.5, 0.5]]),
        r"1 coordinates of the input lie outside WithinBounds\(0, 1\), the first at index \(1, 0\)",
    ),
    "low of another shape": (mk.Gaussian(mk.WithinBounds(-2 * np.ones(5), 2)), X, r"low has shape \(5,\)"),
    "high of another shape": (
        mk.Gaussian(mk.WithinBounds(-2, 2 * np.ones((2, 6)))),
        X,
        r"high has shape \(2, 6\)",
    ),
    "certainty without compact support": (
        mk.Gaussian(mk.WithinBounds(-2, 2, 1)),
        X,
        "unbounded support, .* use a confidence below 1 or a compact kernel such as Uniform",
    ),
    "infinite bounds": (mk.Gaussian(mk.WithinBounds(-np.inf, np.inf)), X, "not finite"),
    "a width below the dtype": (
        mk.Gaussian(1e-9),
        X.astype(np.float16),
        "1e-09 is out of the range of float16",
    ),
    "a width above the dtype": (
        mk.Gaussian(1e9),
        X.astype(np.float16),
        r"1e\+09 is out of the range of float16",
    ),
    "kernel of no input": (
        {"b": GAUSSIAN},
        {"a": X},
        r"kernels are given for \['b'\], .* has the inputs \['a'\]",
    ),
    "named kernel of an unnamed input": ({"b": GAUSSIAN}, X, "one unnamed input: give one kernel"),
    "no kernel": ({}, {"a": X}, "no kernel is given for any input"),
    "scale in a named input": (mk.Gaussian(np.ones(5)), {"a": X}, "input 'a': the scale has shape"),
}


@pytest.mark.parametrize(("kernel", "inputs", "message"), CASES.values(), ids=CASES)
def test_an_input_or_scale_that_does_not_fit(kernel, inputs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mk.Pathwise(kernel).estimate(Untouchable(), inputs, budget=BUDGET)


@pytest.mark.parametrize("scale", [-1.0, 0.0, np.zeros(3), np.array([1.0, -1]), np.nan, np.inf, None])
def test_a_scale_that_is_no_width_is_refused_where_it_is_written(scale):
    with pytest.raises(
        ValueError, match=r"scale=.*widths must be finite and at least 0, and one of them above 0"
    ):
        mk.Gaussian(scale)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mk.OfRange(0), r"OfRange: fraction=0 must be a positive"),
        (lambda: mk.OfMagnitude(-0.1), r"OfMagnitude: fraction=-0.1"),
        (lambda: mk.OfRange(float("nan")), r"OfRange: fraction=nan"),
        (lambda: mk.WithinBounds(1, 0), r"WithinBounds: low=1 must lie below high=0"),
        (lambda: mk.WithinBounds(0, 1, 0), r"confidence=0 must be in \(0, 1\]"),
        (lambda: mk.WithinBounds(0, 1, 1.5), r"confidence=1.5"),
        (lambda: mk.WithinBounds(np.nan, 1), r"WithinBounds: low=nan"),
        (lambda: mk.WithinBounds(np.zeros(2), np.ones(3)), r"low of shape \(2,\) and high of \(3,\)"),
    ],
)
def test_a_rule_out_of_range_is_refused_where_it_is_written(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sobol_beyond_its_coordinates():
    smooth = mk.Pathwise(GAUSSIAN, mk.Sobol())
    with pytest.raises(
        ValueError, match=r"at most 21201 .* 21202 that move; use Recentred or LatinHypercube"
    ):
        smooth.estimate(Untouchable(), np.ones(21202), budget=BUDGET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": mk.RelativeError(0.1, view="sum")}, r"there is no view 'sum'; no views were given"),
        ({"budget": mk.Evaluations(15)}, "needs 2: give at least 16 evaluations"),
        ({"in_flight": 0}, "in_flight=0"),
        ({"rng": -1}, "rng=-1"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        mk.Pathwise(GAUSSIAN).estimate(Untouchable(), X, **({"budget": BUDGET} | options))


def test_a_block_below_one_group():
    with pytest.raises(ValueError, match=r"block=7 holds less than one group of 8 points"):
        mk.Pathwise(GAUSSIAN, block=7).estimate(Untouchable(), X, budget=BUDGET)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (np.stack([X, NAN]), {}, "NaN or infinite"),
        (np.float64(3.0), {}, "a batch needs a leading axis of rows"),
        (np.stack([X, X]), {"held": {"target": [1, 2, 3]}}, r"'held 'target'': 3|\"held 'target'\": 3"),
        (np.stack([X, X]), {"held": {"target": 1}}, "as many everywhere"),
        ({"a": np.ones((2, 3)), "b": np.ones((3, 3))}, {}, "as many everywhere"),
        (np.stack([X, np.ones(6)]), {}, "row 1: .*is zero for every coordinate"),
    ],
)
def test_every_row_of_a_batch_is_checked_first(inputs, options, message):
    smooth = mk.Pathwise(mk.Gaussian(mk.OfRange(0.1)))
    with pytest.raises(ValueError, match=message):
        smooth.estimate_batch(Untouchable(), inputs, budget=BUDGET, rng=0, **options)


def test_a_batch_numbers_its_rows_itself():
    with pytest.raises(TypeError, match="give the seed alone"):
        mk.Pathwise(GAUSSIAN).estimate_batch(Untouchable(), X[:, None], budget=BUDGET, rng=(0, 1))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            lambda p: (p[:, 0], p[:, :5]),
            ValueError,
            r"gradient for the input has shape \(64, 5\); .*\(64, 6\)",
        ),
        (lambda p: (p[:, 0], p[:-1]), ValueError, r"shape \(63, 6\)"),
        (lambda p: (p[:, :1], p), ValueError, r"values have shape \(64, 1\); 64 points need \(64,\)"),
        (
            lambda p: (p[:, 0], np.where(p > 1.2, np.nan, p)),
            FloatingPointError,
            r"gradient is NaN or infinite at",
        ),
        (
            lambda p: (p[:, 0], np.where(p > 1.2, np.inf, p)),
            FloatingPointError,
            r"gradient is NaN or infinite at",
        ),
        (lambda p: (p[:, 0], np.where(p > 1.2, np.inf, -np.inf)), FloatingPointError, "at 64 of 64 points"),
        (lambda p: (p[:, 0] / 0.0, p), FloatingPointError, r"value is NaN or infinite at 64 of 64 points"),
        (lambda p: (p[:, 0], {"x": p}), ValueError, "gradient for the input has shape"),
    ],
    ids=["columns", "rows", "values", "NaN", "infinite", "both infinities", "value", "form"],
)
def test_an_oracle_that_answers_wrongly_is_told(answer, error, message):
    class Wrong:
        def value_and_gradient(self, points):
            with np.errstate(all="ignore"):
                return answer(points)

    with pytest.raises(error, match=message):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(Wrong(), X, budget=BUDGET, rng=0)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda p: p["a"], TypeError, "returned a gradient of type ndarray"),
        (lambda p: {"a": p["a"]}, ValueError, r"no gradient for input 'b', only for \['a'\]"),
        (lambda p: {"a": p["a"], "b": p["b"][:, 0]}, ValueError, "gradient for input 'b' has shape"),
    ],
)
def test_an_oracle_of_several_inputs_that_answers_wrongly_is_told(answer, error, message):
    class Wrong:
        def value_and_gradient(self, points):
            return None, answer(points)

    with pytest.raises(error, match=message):
        mk.Pathwise(GAUSSIAN).estimate(Wrong(), {"a": X, "b": X}, budget=BUDGET, rng=0)


def test_padding_is_not_judged():
    # The last block is padded with the clean input, which is the kink of this model.
    class Kink:
        def value_and_gradient(self, points):
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.abs(points).sum(1) / np.abs(points).sum(1), points / np.abs(points)

    smooth = mk.Pathwise(GAUSSIAN, block=32)
    estimate = smooth.estimate(Kink(), np.zeros(3), budget=mk.Evaluations(40), rng=0)
    assert np.isfinite(estimate.gradient).all()


def test_the_sound_model_passes():
    mk.Pathwise(GAUSSIAN).estimate(Cubic(), X, budget=BUDGET, rng=0)
    with pytest.raises(AssertionError, match="the model was called"):
        mk.Pathwise(GAUSSIAN).estimate(Untouchable(), X, budget=BUDGET, rng=0)


def test_what_is_no_budget_and_what_is_no_kernel_are_named():
    with pytest.raises(TypeError, match="budget=64 is not a budget"):
        mk.Pathwise(mk.Gaussian(0.1)).estimate(Cubic(), np.ones(3), budget=64)
    with pytest.raises(TypeError, match=r"smoothed by 0\.5, which is not a kernel"):
        mk.Pathwise(0.5).estimate(Cubic(), np.ones(3))


@pytest.mark.parametrize("sampler", ["sobol", mk.Independent])
def test_what_is_no_sampler_is_named(sampler):
    with pytest.raises(TypeError, match=r"sampler=.* is not a sampler: give Recentred\(8\)"):
        mk.Pathwise(GAUSSIAN, sampler)


@pytest.mark.parametrize(
    ("views", "told"),
    [
        ([mk.Pool(4)], r"views=\[Pool.* is not a mapping: name each"),
        ({"seen": 4}, "view 'seen' is 4, which is no"),
    ],
)
def test_what_is_no_view_is_named(views, told):
    with pytest.raises(TypeError, match=told):
        mk.Pathwise(GAUSSIAN).estimate(Untouchable(), X, views=views, budget=BUDGET)


@pytest.mark.parametrize(
    "scheme",
    [
        mk.Shrunk,
        lambda kernel: mk.Combined(kernel, None),
        lambda kernel: mk.TwoLevel(kernel, None, price=0.1),
    ],
)
def test_a_kernel_in_the_place_of_an_estimator_is_named(scheme):
    with pytest.raises(TypeError, match=r": Gaussian\(0\.5\) is not a Pathwise: give Pathwise"):
        scheme(GAUSSIAN)


@pytest.mark.parametrize(("sampler", "needed"), [(mk.Sobol(64), 512), (mk.RotatedSobol(np.eye(3), 16), 128)])
def test_nets_too_few_for_an_error_bar_are_refused_and_counted(sampler, needed):
    smooth = mk.Pathwise(GAUSSIAN, sampler)
    with pytest.raises(ValueError, match=f"an error bar needs 8: give at least {needed} evaluations"):
        smooth.estimate(Untouchable(), np.ones(3), budget=mk.Evaluations(needed - 1))
