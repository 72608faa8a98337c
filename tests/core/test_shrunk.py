"""Shrunk: what Stein's estimate of risk promises, on noise of known law, and the bands."""

import numpy as np
import pytest

import mollikit as mk
from mollikit.layout import Layout
from mollikit.surrogates.shrinkage import cross_power, drawn_towards

SHAPE = (2, 16, 16)
ROWS, COLUMNS = np.mgrid[:16, :16] / 16
SMOOTH_IMAGE = np.stack([np.cos(3 * ROWS), np.sin(2 * COLUMNS + ROWS)])
KERNEL = mk.Gaussian(1.0)


class White:
    """Gradients that are a truth plus white normal noise: at x = 0, with unit scale, of this deviation."""

    def __init__(self, truth: np.ndarray, deviation: float) -> None:
        self.truth, self.deviation, self.rows = truth, deviation, 0

    def value_and_gradient(self, points):
        self.rows += len(points)
        return None, self.truth + self.deviation * points


def draws(truth: np.ndarray, deviation: np.ndarray | float, seeds: int, labels: np.ndarray, folds: int = 8):
    """Squared error of the mean of 8 folds, that of the drawn one and the stated risk, by seed."""
    rng, found = np.random.default_rng(0), []
    for _ in range(seeds):
        maps = truth + deviation * np.sqrt(folds) * rng.standard_normal((folds, truth.size))
        drawn = drawn_towards(maps, None, labels)
        errors = [np.square(m - truth).sum() for m in (maps.mean(0), drawn.estimate)]
        found.append((*errors, drawn.total_risk))
    return np.array(found).T


@pytest.mark.parametrize("amplitude", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("size", [20, 200])
def test_the_stated_risk_is_the_real_one(size, amplitude):
    _, real, stated = draws(np.full(size, amplitude), 1.0, 2000, np.zeros(size, np.intp))
    off = stated - real
    # Four standard errors, and what is neglected: the derivative of q, which matters in few dimensions.
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(2000) + (0.15 if size == 20 else 0.01) * real.mean()


def test_a_risk_without_the_price_of_the_weights_is_too_low():
    # The negative control: V R / (R + V) with R as measured, in few dimensions.
    size = 5
    rng, naive, real = np.random.default_rng(0), [], []
    for _ in range(2000):
        maps = 0.3 + np.sqrt(8) * rng.standard_normal((8, size))
        noise = np.square(maps - maps.mean(0)).sum() / 56
        left = max(np.square(maps.mean(0)).sum() - noise, 0)
        naive.append(left * noise / (left + noise))
        real.append(np.square(left / (left + noise) * maps.mean(0) - 0.3).sum())
    assert np.mean(naive) < 0.8 * np.mean(real)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("amplitude", [0.0, 1.0, 4.0])
def test_it_is_never_worse_than_the_mean(size, amplitude):
    mean, drawn, _ = draws(np.full(size, amplitude), 1.0, 2000, np.zeros(size, np.intp))
    excess = drawn - mean
    assert excess.mean() < 4 * excess.std() / np.sqrt(2000) + 0.02 * mean.mean()


def test_noise_in_one_direction_allows_no_gain():
    deviation = np.full(64, 0.01)
    deviation[0] = 1.0
    mean, drawn, _ = draws(np.full(64, 0.5), deviation, 2000, np.zeros(64, np.intp))
    assert 0.8 * mean.mean() < drawn.mean() < 1.05 * mean.mean()


def test_cross_power_is_unbiased():
    rng, truth, guess = np.random.default_rng(1), np.arange(10.0), np.full(10, 4.0)
    found = [cross_power(truth + rng.standard_normal((4, 10)) * 5, guess) for _ in range(4000)]
    expected = np.square(truth - guess).sum()
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(4000)


def test_maps_without_noise_are_kept():
    maps = np.tile(np.arange(6.0), (4, 1))
    drawn = drawn_towards(maps, None, np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(drawn.estimate, maps[0])
    assert drawn.total_risk == 0


def test_risk_over_a_hundred_seeds_and_its_excess_over_known_weights():
    truth, seeds, n = SMOOTH_IMAGE, 120, 32
    estimator = mk.Shrunk(mk.Pathwise(KERNEL, mk.Independent()))
    oracle = White(truth, 4.0)
    runs = [
        estimator.estimate(oracle, np.zeros(SHAPE), budget=mk.Evaluations(n), rng=(0, seed))
        for seed in range(seeds)
    ]
    real = np.array([np.square(run.gradient - truth).sum() for run in runs])
    stated = np.array([run.risk for run in runs])
    assert 0.8 < stated.mean() / real.mean() < 1.25
    bands, layout = estimator.bands, Layout.of(np.zeros(SHAPE))
    labels = bands.labels(layout)
    signal = np.bincount(labels, np.square(bands.coefficients(truth.ravel(), layout)))
    noise = np.bincount(labels) * 16.0 / n
    least = (signal * noise / (signal + noise)).sum()
    mean = noise.sum()
    assert real.mean() < 0.35 * mean
    assert -0.02 * mean < real.mean() - least < 0.05 * mean


def test_bands_are_orthonormal_and_go_back():
    for shape in ((3, 12, 20), (9, 9), (5,), (4, 3)):
        layout, rows = (
            Layout.of(np.zeros(shape)),
            np.random.default_rng(0).standard_normal((2, np.prod(shape))),
        )
        bands = mk.CosineBands(5)
        there = bands.coefficients(rows, layout)
        np.testing.assert_allclose(bands.gradients(there, layout), rows, atol=1e-12)
        np.testing.assert_allclose(np.square(there).sum(1), np.square(rows).sum(1))
        assert bands.labels(layout).shape == (rows.shape[1],)
    assert bands.labels(Layout.of(np.zeros((4, 3)))).max() == 0
    low, high = (
        mk.CosineBands(5).labels(Layout.of(np.zeros((16, 16)))).reshape(16, 16)[k, k] for k in (0, 15)
    )
    assert (low, high) == (0, 4)


def test_several_inputs_have_bands_of_their_own():
    inputs = {"image": np.zeros((16, 16)), "code": np.zeros(7)}
    layout = Layout.of(inputs)
    labels = mk.CosineBands(3).labels(layout)
    assert set(labels[:256]) == {0, 1, 2}
    assert set(labels[256:]) == {3}


def test_the_same_seed_gives_the_same_bits_and_the_input_is_kept():
    estimator, x = mk.Shrunk(mk.Pathwise(KERNEL, mk.Independent())), np.zeros(SHAPE)
    first, again, other = (
        estimator.estimate(White(SMOOTH_IMAGE, 1.0), x, budget=mk.Evaluations(32), rng=rng)
        for rng in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.gradient, again.gradient)
    assert first.risk == again.risk
    assert np.abs(first.gradient - other.gradient).max() > 0
    assert not x.any()


def test_views_are_weighted_for_themselves():
    view = mk.ChannelSum(0).then(mk.Pool(8))
    estimator, expected = mk.Shrunk(mk.Pathwise(KERNEL, mk.Independent())), view(SMOOTH_IMAGE[None])[0]
    runs = [
        estimator.estimate(
            White(SMOOTH_IMAGE, 4.0),
            np.zeros(SHAPE),
            budget=mk.Evaluations(32),
            rng=seed,
            views={"seen": view},
        )
        for seed in range(100)
    ]
    real = np.mean([np.square(run.views["seen"].value - expected).sum() for run in runs])
    assert runs[0].views["seen"].value.shape == (2, 2)
    assert 0.75 < np.mean([run.views["seen"].risk for run in runs]) / real < 1.3


def test_bad_input_is_refused_before_the_model_is_called():
    oracle, x = White(SMOOTH_IMAGE, 1.0), np.zeros(SHAPE)
    few = mk.Shrunk(mk.Pathwise(KERNEL, mk.Independent()))
    with pytest.raises(ValueError, match=r"need 16: give at least Evaluations\(16\)"):
        few.estimate(oracle, x, budget=mk.Evaluations(15))
    with pytest.raises(ValueError, match=r"8 folds of 2 groups of 8 points need 128.*Independent"):
        mk.Shrunk(mk.Pathwise(KERNEL)).estimate(oracle, x, budget=mk.Evaluations(64))
    with pytest.raises(ValueError, match="folds=2"):
        mk.Shrunk(mk.Pathwise(KERNEL), folds=2).estimate(oracle, x)
    with pytest.raises(TypeError, match="Evaluations"):
        few.estimate(oracle, x, budget=mk.Seconds(1))
    with pytest.raises(ValueError, match="CosineBands"):
        mk.CosineBands(0)
    assert oracle.rows == 0
