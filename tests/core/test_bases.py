from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dctn

import mollikit as mk
from tests.core.black_boxes import Counting, Values, is_unbiased
from tests.core.closed_forms import Linear, PlaneWaves

LABELS = np.array([[9, 9, 2, 2], [9, 2, 2, -5], [9, -5, -5, -5]])
SHAPE = (2, 3, 4)
RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((*SHAPE, 5))
BASES = [mk.Superpixels(LABELS, SHAPE), mk.Cosines((2, 3), SHAPE), mk.Columns(MATRIX)]
PHOTO = RNG.standard_normal(SHAPE)

every_basis = pytest.mark.parametrize("basis", BASES, ids=repr)


class Flat:
    """Waves of an image: the values of a form in its pixels."""

    def __init__(self, form):
        self.form = form

    def value(self, points):
        return self.form.value_and_gradient(points.reshape(len(points), -1))[0]


def matrix_of(basis):
    """B, (pixels, coefficients), column by column."""
    size = int(np.prod(basis.shape))
    return basis.expand(np.eye(size).reshape(size, *basis.shape)).reshape(size, -1).T


@every_basis
def test_the_image_of_a_gradient_is_its_orthogonal_projection(basis):
    b, gradient = matrix_of(basis), RNG.standard_normal(PHOTO.size)
    by_coefficients = (b.T @ gradient).reshape(1, *basis.shape)
    projection = b @ np.linalg.lstsq(b, gradient, rcond=None)[0]
    np.testing.assert_allclose(basis.image(by_coefficients)[0].ravel(), projection, atol=1e-12)


def test_superpixels_add_to_each_region_alone():
    b = matrix_of(BASES[0]).reshape(*SHAPE, 3)
    for k, label in enumerate([-5, 2, 9]):
        np.testing.assert_array_equal(b[..., k], np.broadcast_to(label == LABELS, SHAPE))


def test_labels_for_each_channel_move_it_alone():
    whole = np.stack([LABELS, LABELS + 100])
    assert mk.Superpixels(whole, SHAPE).shape == (6,)


def test_cosines_are_orthonormal_and_the_lowest():
    b = matrix_of(BASES[1])
    np.testing.assert_allclose(b.T @ b, np.eye(12), atol=1e-12)
    c = RNG.standard_normal((1, 2, 2, 3))
    spectrum = dctn(BASES[1].expand(c), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(spectrum[..., :2, :3], c, atol=1e-12)
    spectrum[..., :2, :3] = 0
    np.testing.assert_allclose(spectrum, 0, atol=1e-12)


def test_columns_are_the_matrix():
    np.testing.assert_allclose(matrix_of(BASES[2]), MATRIX.reshape(-1, 5))


@every_basis
@pytest.mark.parametrize("estimator", [mk.Secant, mk.ScoreFunction])
def test_the_estimand_is_that_of_the_subspace(basis, estimator):
    form, kernel = PlaneWaves(RNG.normal(0, 0.3, (3, PHOTO.size))), mk.Gaussian(0.4)
    b, inside = matrix_of(basis), mk.InBasis(Flat(form), PHOTO, basis)
    # cos(w . (x + B c)) is a wave of frequency B^T w about the phase w . x.
    damping = kernel.characteristic_function(form.frequencies @ b * 0.4).prod(1)
    truth = -(np.sin(form.frequencies @ PHOTO.ravel()) * damping) @ form.frequencies @ b
    views = {"image": inside.image}
    estimate = estimator(kernel).estimate(
        inside, inside.origin, views=views, budget=mk.Evaluations(1 << 14), rng=1
    )
    assert estimate.gradient.shape == basis.shape
    assert is_unbiased(estimate, truth.reshape(basis.shape))
    image = estimate.views["image"]
    expected = basis.image(truth.reshape(1, *basis.shape))[0]
    assert image.value.shape == SHAPE
    assert (np.abs(image.value - expected) <= 5.5 * image.standard_error).all()  # 24 pixels: false alarm 1e-6


def test_a_linear_model_is_projected_exactly():
    weights = RNG.standard_normal(PHOTO.size)
    for basis in BASES:
        inside = mk.InBasis(Flat(Linear(weights)), PHOTO, basis)
        size = int(np.prod(basis.shape))
        estimate = mk.Secant(mk.Gaussian(2.0)).estimate(
            inside, inside.origin, views={"image": inside.image}, budget=mk.Evaluations(16 * size), rng=0
        )
        b = matrix_of(basis)
        np.testing.assert_allclose(estimate.gradient.ravel(), b.T @ weights, atol=1e-11)
        projection = (b @ np.linalg.pinv(b) @ weights).reshape(SHAPE)
        np.testing.assert_allclose(estimate.views["image"].value, projection, atol=1e-11)


def test_the_image_can_be_looked_at_further():
    inside = mk.InBasis(Flat(Linear(np.ones(24))), PHOTO, BASES[0])
    view = inside.image.then(mk.ChannelSum()).then(mk.Pool(2))
    estimate = mk.Secant(mk.Gaussian(1.0)).estimate(
        inside, inside.origin, views={"seen": view}, budget=mk.Evaluations(48), rng=0
    )
    np.testing.assert_allclose(estimate.views["seen"].value, 2)


def test_the_model_gets_points_of_its_own_dtype():
    oracle = Counting(Flat(Linear(np.ones(24))))
    inside = mk.InBasis(oracle, PHOTO.astype(np.float32), BASES[0])
    mk.Secant(mk.Gaussian(1.0)).estimate(inside, inside.origin, budget=mk.Evaluations(48), rng=0)
    assert {points.dtype for points in oracle.points} == {np.dtype(np.float32)}
    assert {points.shape[1:] for points in oracle.points} == {SHAPE}


def test_choices_are_made_on_the_clean_input():
    asked = []

    class Chooses:
        def anchored(self, inputs, **held):
            asked.append((inputs, held))
            return Flat(Linear(np.ones(24)))

        def value(self, points, **held):
            raise AssertionError("the choice has not been made")

    inside = mk.InBasis(Chooses(), PHOTO, BASES[0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        mk.Secant(mk.Gaussian(1.0)).estimate(
            inside, inside.origin, held={"mask": 1}, budget=mk.Evaluations(48), rng=0
        )
    np.testing.assert_array_equal(asked[0][0], PHOTO)
    assert asked[0][1] == {"mask": 1}


def test_an_oracle_without_values_is_refused():
    with pytest.raises(TypeError, match=r"Linear has no value\(points\)"):
        mk.InBasis(Linear(np.ones(24)), PHOTO, BASES[0])


def test_a_basis_of_another_space_is_refused():
    with pytest.raises(ValueError, match=r"Cosines.*\(2, 3, 4\).*this one has \(3, 4\)"):
        mk.InBasis(Values(Linear(np.ones(12))), PHOTO[0], BASES[1])


def test_labels_that_are_no_integers_or_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="float64"):
        mk.Superpixels(LABELS / 2, SHAPE)
    with pytest.raises(ValueError, match=r"\(3, 4\) do not broadcast to the input's \(5, 5\)"):
        mk.Superpixels(LABELS, (5, 5))


@pytest.mark.parametrize("frequencies", [(0, 2), (2, 5)])
def test_more_frequencies_than_pixels_are_refused(frequencies):
    with pytest.raises(ValueError, match="frequencies of an image"):
        mk.Cosines(frequencies, SHAPE)


def test_an_input_without_two_axes_has_no_cosines():
    with pytest.raises(ValueError, match="no two axes"):
        mk.Cosines((2, 2), (9,))


def test_dependent_or_infinite_columns_are_refused():
    with pytest.raises(ValueError, match="3 columns span 2 dimensions"):
        mk.Columns(np.array([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]]))
    with pytest.raises(ValueError, match="finite numbers"):
        mk.Columns(np.array([[1.0], [np.inf]]))
