"""Combined and Audited: between an unbiased estimate and a surrogate, whatever the surrogate is worth."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mollikit as mk
from tests.core.test_shrunk import KERNEL, SHAPE, SMOOTH_IMAGE, White

X = np.zeros(SHAPE)
PATHWISE = mk.Pathwise(KERNEL, mk.Independent())


class Fixed:
    """A surrogate that is always the same map."""

    def __init__(self, gradient: np.ndarray, cost: float = 4.0) -> None:
        self.gradient, self.cost, self.calls = gradient, cost, 0

    def surrogate(self, oracle, inputs, *, held=None, rng=None):
        self.calls += 1
        return mk.SurrogateMap(self.gradient, self.cost, "fixed by hand", {"told": "so"})


def errors(estimator, n: int, seeds: int = 100, deviation: float = 4.0) -> tuple[float, float]:
    """Mean real and stated squared error."""
    runs = [
        estimator.estimate(White(SMOOTH_IMAGE, deviation), X, budget=mk.Evaluations(n), rng=(3, seed))
        for seed in range(seeds)
    ]
    real = np.mean([np.square(run.gradient - SMOOTH_IMAGE).sum() for run in runs])
    return float(real), float(np.mean([run.risk for run in runs]))


def off(size: float) -> np.ndarray:
    """The truth and a random map of this deviation."""
    return SMOOTH_IMAGE + size * np.random.default_rng(5).standard_normal(SHAPE)


# Of the mean of 32 gradients: 512 * 4^2 / 32 = 256. Of a surrogate that is off by s: about 512 s^2.
@pytest.mark.parametrize("size", [0.25, 0.7, 2.0])
def test_the_stated_risk_is_the_real_one(size):
    real, stated = errors(mk.Combined(PATHWISE, Fixed(off(size))), 36)
    assert 0.8 < stated / real < 1.25
    # The least that one weight for everything could do, and what estimated weights may add.
    bias = np.square(off(size) - SMOOTH_IMAGE).sum()
    assert real < bias * 256 / (bias + 256) + 0.05 * 256


def test_a_surrogate_that_is_right_takes_the_noise_away_and_one_that_is_wild_does_no_harm():
    right, _ = errors(mk.Combined(PATHWISE, Fixed(SMOOTH_IMAGE)), 36)
    wild, _ = errors(mk.Combined(PATHWISE, Fixed(off(100.0))), 36)
    assert right < 0.05 * 256
    assert 0.9 * 256 < wild < 1.05 * 256


def test_it_is_consistent_whatever_the_surrogate():
    few, many = (errors(mk.Combined(PATHWISE, Fixed(off(2.0))), n, 10)[0] for n in (36, 2052))
    assert many < few / 30


def test_the_audit_is_unbiased():
    surrogate = Fixed(off(0.7))
    bias = np.square(off(0.7) - SMOOTH_IMAGE).sum()
    runs = [
        mk.Audited(PATHWISE, surrogate).estimate(
            White(SMOOTH_IMAGE, 4.0), X, budget=mk.Evaluations(36), rng=seed
        )
        for seed in range(100)
    ]
    stated = [run.risk for run in runs]
    assert abs(np.mean(stated) - bias) < 4 * np.std(stated) / 10
    np.testing.assert_array_equal(runs[0].gradient, surrogate.gradient)
    assert "fixed by hand" in runs[0].biased


def test_the_budget_pays_the_surrogate_first_and_is_never_exceeded():
    oracle, surrogate = White(SMOOTH_IMAGE, 1.0), Fixed(off(1.0), cost=9.5)
    estimate = mk.Combined(PATHWISE, surrogate).estimate(oracle, X, budget=mk.Evaluations(50), rng=0)
    assert estimate.n_gradients == 40  # 8 folds of 5; 50 - 9.5 leaves 40
    assert oracle.rows >= 40
    assert estimate.n_evaluations == 49.5
    assert surrogate.calls == 1
    with pytest.raises(
        ValueError, match=r"leaves 6 gradients beside the surrogate \(9.5\).*Evaluations\(26\)"
    ):
        mk.Combined(PATHWISE, surrogate).estimate(oracle, X, budget=mk.Evaluations(16), rng=0)


def test_an_executor_changes_no_bit():
    combined = mk.Combined(PATHWISE, Fixed(off(1.0)))
    alone = combined.estimate(White(SMOOTH_IMAGE, 1.0), X, budget=mk.Evaluations(100), rng=1)
    with ThreadPoolExecutor(2) as executor:
        pooled = combined.estimate(
            White(SMOOTH_IMAGE, 1.0), X, budget=mk.Evaluations(100), rng=1, executor=executor
        )
    np.testing.assert_array_equal(alone.gradient, pooled.gradient)
    assert alone.risk == pooled.risk


def test_a_coarse_model_is_a_surrogate_with_a_price():
    coarse = mk.Coarse(White(SMOOTH_IMAGE, 0.1), PATHWISE, mk.Evaluations(40), price=0.1)
    combined = mk.Combined(PATHWISE, coarse)
    assert coarse.cost == pytest.approx(4)
    assert isinstance(coarse, mk.Surrogate)
    real, stated = errors(combined, 36)
    assert real < 0.1 * 256
    assert stated < 0.1 * 256
    with pytest.raises(ValueError, match="price"):
        mk.Coarse(White(SMOOTH_IMAGE, 1.0), PATHWISE, mk.Evaluations(8), price=0)


def test_a_mapping_of_inputs_and_held_arrays_go_through():
    class Weighted:
        def value_and_gradient(self, points, weight):
            return None, {"a": weight * points["a"], "b": 1 + points["b"]}

    inputs = {"a": np.ones(3), "b": np.zeros((2, 2))}
    guess = {"a": np.full(3, 2.0), "b": np.ones((2, 2))}
    estimate = mk.Combined(PATHWISE, Fixed(guess)).estimate(
        Weighted(), inputs, held={"weight": np.full(3, 2.0)}, budget=mk.Evaluations(404), rng=0
    )
    np.testing.assert_allclose(estimate.gradient["a"], 2, atol=0.5)
    np.testing.assert_allclose(estimate.gradient["b"], 1, atol=0.5)


def test_what_is_told_of_it():
    views = {"sum": mk.ChannelSum(0)}
    estimate = mk.Combined(PATHWISE, Fixed(off(0.5))).estimate(
        White(SMOOTH_IMAGE, 1.0), X, budget=mk.Evaluations(68), rng=7, views=views
    )
    assert "drawn towards a surrogate: fixed by hand" in repr(estimate)
    assert "the cost of 68 gradients" in repr(estimate)
    assert estimate.provenance["surrogate"] == {"told": "so"}
    assert (estimate.provenance["seed"], estimate.provenance["item"]) == (7, 0)
    assert estimate.views["sum"].value.shape == (16, 16)
    assert estimate.relative_error == pytest.approx(np.sqrt(estimate.risk / estimate.signal))
