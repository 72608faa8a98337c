"""Per-sample attributions are smoothed as gradients are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.testing import rounding
from tests.core.closed_forms import KERNELS, Cubic, waves
from tests.core.test_views import SPLIT, Split

X = np.linspace(-1, 1.5, 5)
WIDTHS = np.linspace(0.3, 0.9, 5)


def assert_agrees(estimate, truth):
    bound = stats.t.isf(1e-4 / 2 / truth.size, estimate.degrees_of_freedom)
    worst = (np.abs(estimate.gradient - truth) / (bound * estimate.standard_error)).max()
    assert worst < 1, f"{worst * bound:.1f} standard errors from the truth"


def smoothed(oracle, kernel=mk.Gaussian, n=1 << 15, **options):
    return mk.Pathwise(kernel(WIDTHS)).estimate(oracle, X, budget=mk.Evaluations(n), rng=0, **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("baseline", [0.0, 0.7, np.linspace(-1, 1, 5)])
def test_input_times_gradient_agrees_with_the_closed_form(kernel, baseline):
    # (x - b) 3 x^2 at x + s t, whose odd moments vanish: 3 (x^3 + 3 x s^2 v) - 3 b (x^2 + s^2 v).
    v = WIDTHS**2 * kernel(1.0).variance
    truth = 3 * (X**3 + 3 * X * v) - 3 * baseline * (X**2 + v)
    assert_agrees(smoothed(mk.InputTimesGradient(Cubic(), baseline), kernel), truth)
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        # The clean input times the smoothed gradient is something else.
        assert_agrees(
            smoothed(mk.InputTimesGradient(Cubic(), baseline), kernel), (X - baseline) * 3 * (X**2 + v)
        )


def test_any_function_of_points_and_gradients_is_smoothed():
    squares = mk.Attribution(Cubic(), lambda points, gradients: gradients**2, "squares")
    estimate = smoothed(squares, views={"sum": lambda g: g.sum(1)})
    truth = 9 * (X**4 + 6 * X**2 * WIDTHS**2 + 3 * WIDTHS**4)
    assert_agrees(estimate, truth)
    view = estimate.views["sum"]
    assert abs(view.value - truth.sum()) < 4 * view.standard_error
    both = mk.Pathwise(mk.Gaussian(WIDTHS), second_moments=True).estimate(
        Cubic(), X, budget=mk.Evaluations(1 << 15), rng=0
    )
    np.testing.assert_allclose(both.mean_square.value, estimate.gradient, rtol=rounding(float))


def test_the_estimand_and_the_models_name_are_in_the_provenance():
    oracle = waves(3, 5)
    estimate = smoothed(mk.InputTimesGradient(oracle, 0.5), n=64)
    about = estimate.provenance
    assert about["estimand"] == (
        "gradient of the smoothed function, with in the gradient's place: "
        "(input - baseline) * gradient, baseline 0.5"
    )
    assert about["oracle"] == f"InputTimesGradient({oracle!r}, baseline=0.5)"
    with pytest.raises(ValueError, match=r"oracle: InputTimesGradient"):
        smoothed(mk.InputTimesGradient(oracle, 0.6), n=128, resume=estimate)
    assert "place" not in smoothed(oracle, n=64).provenance["estimand"]


def test_arrays_are_told_apart_in_the_name():
    a, b = np.zeros(5), np.zeros(5)
    b[3] = 1e-3
    assert repr(mk.InputTimesGradient(waves(), a)) != repr(mk.InputTimesGradient(waves(), b))


def test_several_inputs_have_baselines_by_name():
    def run(baseline):
        oracle = mk.InputTimesGradient(Split(), baseline)
        return mk.Pathwise(mk.Gaussian(0.2), block=16).estimate(
            oracle, SPLIT, budget=mk.Evaluations(64), rng=0
        )

    name = next(iter(SPLIT))
    plain, shifted = run(0.0), run({name: 1.0})
    gradient = mk.Pathwise(mk.Gaussian(0.2), block=16).estimate(
        Split(), SPLIT, budget=mk.Evaluations(64), rng=0
    )
    for key in SPLIT:
        expected = plain.gradient[key] - (gradient.gradient[key] if key == name else 0)
        np.testing.assert_allclose(shifted.gradient[key], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"baseline is given for \['nowhere'\]"):
        run({"nowhere": 1.0})


def test_the_models_choices_are_made_on_the_clean_input():
    @dataclass(frozen=True)
    class Top:
        """Explains its largest output."""

        target: int | None = None

        def anchored(self, inputs, **held):
            return Top(int(np.argmax(inputs)))

        def value_and_gradient(self, points, **held):
            gradient = np.zeros_like(points)
            gradient[:, self.target] = 1
            return points[:, self.target], gradient

    estimate = smoothed(mk.InputTimesGradient(Top()), n=64)
    assert np.flatnonzero(estimate.gradient).tolist() == [4]
    assert "target=4" in estimate.provenance["oracle"]


@pytest.mark.parametrize("make", [mk.InputTimesGradient, lambda oracle: mk.Attribution(oracle, np.multiply)])
def test_a_model_without_gradients_is_refused(make):
    with pytest.raises(TypeError, match="object has no value_and_gradient"):
        make(object())


def test_an_attribution_of_another_form_is_refused_by_name():
    summed = mk.Attribution(waves(1, 5), lambda points, gradients: gradients.sum(1), "the sum")
    with pytest.raises(ValueError, match=r"the attribution the sum has the shape \(16,\)"):
        smoothed(summed, n=16)
    with pytest.raises(ValueError, match=r"shape \(3,\), which does not broadcast to \(5,\)"):
        smoothed(mk.InputTimesGradient(waves(1, 5), np.zeros(3)), n=16)
    with pytest.raises(TypeError, match="given by name"):
        smoothed(mk.InputTimesGradient(waves(1, 5), {"a": 1.0}), n=16)
