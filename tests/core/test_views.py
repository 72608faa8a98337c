from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mollikit as mk
from mollikit.testing import rounding
from tests.core.closed_forms import SAMPLERS, PlaneWaves, Recording

IMAGE = np.random.default_rng(3).standard_normal((2, 5, 7))
FORM = PlaneWaves(np.random.default_rng(4).uniform(0.05, 0.3, (4, IMAGE.size)))


class Image:
    """Waves over an image, whose pixels' gradients are therefore strongly correlated."""

    def value_and_gradient(self, points):
        value, gradient = FORM.value_and_gradient(points.reshape(len(points), -1))
        return value, gradient.reshape(points.shape)


def pooled(array, size):
    """The definition, window by window."""
    height, width = array.shape[-2:]
    return np.stack(
        [
            np.stack(
                [array[..., i : i + size, j : j + size].mean(axis=(-2, -1)) for j in range(0, width, size)],
                axis=-1,
            )
            for i in range(0, height, size)
        ],
        axis=-2,
    )


@given(size=st.integers(1, 9), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_pool_is_the_mean_of_each_window_whole_or_cut(size, height, width):
    array = np.random.default_rng(0).standard_normal((2, 3, height, width))
    np.testing.assert_allclose(mk.Pool(size)(array), pooled(array, size), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_channel_sum_counts_axes_of_the_input(axis):
    batch = np.stack([IMAGE, 2 * IMAGE])
    expected = np.stack([IMAGE.sum(axis), 2 * IMAGE.sum(axis)])
    np.testing.assert_allclose(mk.ChannelSum(axis)(batch), expected)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_views_value_is_the_view_of_the_gradient_and_its_error_its_own(sampler):
    view = mk.ChannelSum(0).then(mk.Pool(3))
    smooth, budget = mk.Pathwise(mk.Gaussian(0.3), sampler), mk.Evaluations(512)
    runs = [smooth.estimate(Image(), IMAGE, budget=budget, views={"v": view}, rng=k) for k in range(200)]
    first = runs[0]
    np.testing.assert_allclose(first.views["v"].value, view(first.gradient[None])[0], rtol=1e-9, atol=1e-12)
    assert first.views["v"].degrees_of_freedom == first.degrees_of_freedom
    spread = np.var([run.views["v"].value for run in runs], axis=0, ddof=1)
    said = np.mean([run.views["v"].standard_error ** 2 for run in runs], axis=0)
    # A variance of 200 values against the mean of 200 estimates of it: 4.5 standard errors.
    bound = 4.5 * np.sqrt(2 / 199 * (1 + 1 / first.degrees_of_freedom))
    assert np.abs(spread / said - 1).max() < bound
    # The control: the error of the whole windows' means, had the pixels been independent, is another one.
    pixels = np.mean([(run.standard_error**2).sum(0) for run in runs], axis=0)
    naive = pooled(pixels, 3)[:1, :2] / 9
    assert np.abs(naive / said[:1, :2] - 1).max() > bound


@pytest.mark.parametrize(
    "view",
    [
        np.abs,
        lambda g: g.max(axis=(1, 2)),
        lambda g: g**2,
        lambda g: g.sum(axis=1) + 1,
        lambda g: np.maximum(g, 0),
    ],
    ids=["abs", "max", "square", "affine", "positive part"],
)
def test_a_view_that_is_not_linear_is_refused_by_name(view):
    oracle = Recording(Image())
    with pytest.raises(ValueError, match="view 'mine' is not linear"):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(oracle, IMAGE, views={"mine": view}, budget=mk.Evaluations(64))
    assert oracle.batches == []


@pytest.mark.parametrize(
    "view",
    [
        lambda g: g.sum(axis=0),
        lambda g: g.sum(),
        lambda g: g - g.mean(axis=0),
        lambda g: np.swapaxes(g, 0, 1),
    ],
    ids=["sums over the batch", "one number", "mixes rows", "moves the batch axis"],
)
def test_a_view_that_mixes_the_rows_of_a_batch_is_refused_by_name(view):
    oracle = Recording(Image())
    with pytest.raises(
        ValueError, match=r"view 'mine' makes an array of shape .* must keep their first axis"
    ):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(oracle, IMAGE, views={"mine": view}, budget=mk.Evaluations(64))
    assert oracle.batches == []


def test_any_linear_callable_is_a_view():
    weights = np.random.default_rng(0).standard_normal(IMAGE.size)
    estimate = mk.Pathwise(mk.Gaussian(0.3)).estimate(
        Image(),
        IMAGE,
        views={"projection": lambda g: g.reshape(len(g), -1) @ weights},
        budget=mk.Evaluations(64),
        rng=0,
    )
    value = estimate.views["projection"].value
    assert value.shape == ()
    np.testing.assert_allclose(value, estimate.gradient.ravel() @ weights, rtol=1e3 * rounding(float))


class Split:
    """Two inputs side by side."""

    def value_and_gradient(self, points):
        flat = np.concatenate([points["image"].reshape(-1, 60), points["text"]], axis=1)
        value, gradient = FORM.value_and_gradient(flat)
        return value, {"image": gradient[:, :60].reshape(-1, 3, 4, 5), "text": gradient[:, 60:]}


SPLIT = {"image": IMAGE.ravel()[:60].reshape(3, 4, 5), "text": IMAGE.ravel()[60:]}


def test_views_of_one_of_several_inputs():
    views = {"sum": mk.Input("image").then(mk.ChannelSum()), "text": mk.Input("text")}
    smooth = mk.Pathwise(mk.Gaussian(0.3))
    estimate = smooth.estimate(Split(), SPLIT, views=views, budget=mk.Evaluations(64), rng=0)
    gradient = estimate.gradient
    np.testing.assert_allclose(estimate.views["sum"].value, gradient["image"].sum(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(estimate.views["text"].value, gradient["text"])


@pytest.mark.parametrize(
    ("view", "inputs", "message"),
    [
        (mk.Input("sound"), SPLIT, r"no such input; this model has \['image', 'text'\]"),
        (mk.Input("image"), IMAGE, "this model has one unnamed input"),
        (mk.ChannelSum(), SPLIT, r"begin with Input\(name\)"),
        (mk.ChannelSum(3), IMAGE, r"shape \(2, 5, 7\) has no such axis"),
        (mk.Pool(2), np.ones(3), "at least two axes"),
        (mk.Pool(2), SPLIT, "at least two axes"),
    ],
)
def test_a_view_that_does_not_fit_the_input_is_refused_before_the_model_is_called(view, inputs, message):
    oracle = Recording(Image())
    with pytest.raises(ValueError, match=message):
        mk.Pathwise(mk.Gaussian(1.0)).estimate(oracle, inputs, views={"v": view}, budget=mk.Evaluations(64))
    assert oracle.batches == []


def test_windows_have_at_least_one_pixel():
    with pytest.raises(ValueError, match=r"Pool\(0\)"):
        mk.Pool(0)
