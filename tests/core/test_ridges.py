"""Ridges: a gradient that is the sum's, and a mean under Gaussian noise that is known."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import ndtr
from scipy.stats import multivariate_normal

import mollikit as mk

RNG = np.random.default_rng(3)
X = RNG.standard_normal(5)
WIDTHS = np.array([0.5, 0.2, 0.0, 1.0, 0.4])


def layer(k: int, windows: int = 6) -> mk.Rectified:
    forms = k * windows
    return mk.Rectified(
        RNG.standard_normal((forms, 5)), RNG.standard_normal(forms), RNG.standard_normal(windows)
    )


def value(part: mk.Rectified, x: np.ndarray) -> float:
    u = (part.offsets + part.rows @ (x - X)).reshape(-1, part.size)
    return float(part.weights @ np.maximum(u.max(axis=1), 0))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_gradient_is_that_of_the_sum(k):
    part = layer(k)
    points = X + RNG.standard_normal((20, 5))
    _, gradients = mk.Ridges(X, [part, part]).value_and_gradient(points)
    step = 1e-6
    for point, gradient in zip(points, gradients, strict=True):
        slopes = [
            (value(part, point + step * e) - value(part, point - step * e)) / (2 * step) for e in np.eye(5)
        ]
        np.testing.assert_allclose(gradient, 2 * np.array(slopes), atol=1e-7)


def test_the_mean_of_single_forms_is_exact():
    part = layer(1)
    deviation = np.sqrt(np.square(part.rows * WIDTHS).sum(axis=1))
    expected = part.rows.T @ (part.weights * ndtr(part.offsets / deviation))
    np.testing.assert_allclose(mk.Ridges(X, [part]).smoothed(WIDTHS), expected, rtol=1e-9, atol=1e-12)


def means_of_windows(part: mk.Rectified) -> np.ndarray:
    """By scipy's multivariate normal: form j is the largest and positive where (u_j - others, u_j) > 0."""
    k, total = part.size, np.zeros(5)
    for w, weight in enumerate(part.weights):
        rows, offsets = (a[w * k : (w + 1) * k] for a in (part.rows, part.offsets))
        for j in range(k):
            signs = np.eye(k)[j] - np.eye(k)
            signs[j] = np.eye(k)[j]
            forms = signs @ rows * WIDTHS
            law = multivariate_normal(-signs @ offsets, forms @ forms.T)
            total += weight * rows[j] * law.cdf(np.zeros(k), rng=np.random.default_rng(0))
    return total


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_mean_of_windows_comes_close_as_nodes_are_added(k):
    part = layer(k)
    ridges, expected = mk.Ridges(X, [part]), means_of_windows(part)
    errors = [
        np.mean([np.square(ridges.smoothed(WIDTHS, nodes=n, rng=s) - expected).sum() for s in range(8)])
        for n in (16, 1024)
    ]
    # An error as 1 / n falls by 64 squared, independent points' by 64; scipy is good to 1e-5.
    assert errors[1] < errors[0] / 300
    assert np.sqrt(errors[1]) < 0.01 * np.linalg.norm(part.weights)


def test_sparse_rows_are_rows():
    part = layer(2)
    sparse = mk.Rectified(csr_array(part.rows), part.offsets, part.weights)
    points = X + RNG.standard_normal((9, 5))
    found, expected = (mk.Ridges(X, [p]).value_and_gradient(points)[1] for p in (sparse, part))
    np.testing.assert_allclose(found, expected, atol=1e-13)
    found, expected = (mk.Ridges(X, [p]).smoothed(WIDTHS, rng=1) for p in (sparse, part))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert sparse.work == part.work == 60


def test_two_levels_with_the_known_mean_are_unbiased_and_a_wrong_mean_is_not():
    part = layer(2)
    ridges = mk.Ridges({"a": X}, [part])
    widths = np.full(5, 0.5)

    class Model:
        def value_and_gradient(self, points):
            gradient = ridges.value_and_gradient(points)[1]["a"]
            return None, {"a": gradient + 0.1 * np.cos(points["a"])}

    of_ridges = ridges.smoothed({"a": widths}, nodes=8192, rng=5)["a"]
    truth = of_ridges + 0.1 * np.cos(X) * np.exp(-0.125)
    pathwise = mk.Pathwise(mk.Gaussian(0.5), mk.Independent())

    def worst(mean):
        two = mk.TwoLevel(pathwise, ridges, price=0.1, mean=mean)
        found = two.estimate(Model(), {"a": X}, budget=mk.Evaluations(2048), rng=0)
        return np.abs((found.gradient["a"] - truth) / found.standard_error["a"]).max()

    # Of five coordinates: a false alarm in 1e-4.
    assert worst(ridges.smoothed({"a": widths}, nodes=8192, rng=2)) < 4.3
    assert worst(ridges.smoothed({"a": 1.5 * widths}, nodes=8192, rng=2)) > 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equal_forms_one_is_open_as_the_known_mean_has_it(dtype):
    row = RNG.standard_normal(5).astype(dtype)
    alone = mk.Rectified(row[None], np.full(1, 0.1, dtype), np.ones(1))
    twice = mk.Rectified(np.stack([row, row]), np.full(2, 0.1, dtype), np.ones(1))
    base = X.astype(dtype)
    points = base + RNG.standard_normal((20, 5)).astype(dtype)
    one, two = (mk.Ridges(base, [part]) for part in (alone, twice))
    gradients = one.value_and_gradient(points)[1]
    assert gradients.any()
    np.testing.assert_array_equal(two.value_and_gradient(points)[1], gradients)
    # The nodes of two forms leave an error of their own.
    np.testing.assert_allclose(two.smoothed(WIDTHS), one.smoothed(WIDTHS), rtol=0.01)


def test_ridges_without_layers_or_of_another_input_are_refused():
    with pytest.raises(ValueError, match="no layers"):
        mk.Ridges(X, [])
    with pytest.raises(ValueError, match=r"rows of shape \(6, 5\).* 4 coordinates"):
        mk.Ridges(X[:4], [layer(1)])


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="each weight has the same number of rows"):
        mk.Rectified(np.ones((3, 5)), np.ones(3), np.ones(2))
