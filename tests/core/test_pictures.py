"""Pictures show what they are given: read back from matplotlib's own objects."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mollikit.measurement import Measurement
from mollikit.moments import Moments
from mollikit.pictures import channel_axis, error_map, is_image, panel, resolved_map, signed_map, summed


@pytest.fixture
def axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def measured(values, errors, groups=20):
    values, errors = np.asarray(values, float), np.asarray(errors, float)
    return Measurement(Moments(groups, values, errors**2 * groups * (groups - 1)))


def drawn(axes):
    axes.figure.savefig(io.BytesIO(), format="png")
    return axes.get_images()[-1]


@pytest.mark.parametrize(
    ("shape", "image", "axis"),
    [
        ((3, 8, 9), True, 0),
        ((1, 8, 9), True, 0),
        ((8, 9, 3), True, 2),
        ((8, 9), True, None),
        ((1, 9), False, None),
        ((7, 8, 9), False, None),
        ((5,), False, None),
        ((2, 3, 8, 9), False, None),
    ],
)
def test_what_reads_as_an_image(shape, image, axis):
    assert is_image(shape) == image
    if image:
        assert channel_axis(shape) == axis


def test_channels_are_summed_not_averaged():
    values = np.arange(24.0).reshape(3, 2, 4)
    np.testing.assert_array_equal(summed(values), values[0] + values[1] + values[2])
    np.testing.assert_array_equal(summed(values.transpose(1, 2, 0)), summed(values))


def test_a_signed_map_is_centred_on_zero(axes):
    values = np.linspace(-1, 3, 80).reshape(8, 10)
    signed_map(axes, values, "title")
    image = drawn(axes)
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.norm(0.0) == 0.5
    assert image.norm.vmax == pytest.approx(np.quantile(np.abs(values), 0.995))
    assert axes.get_title() == "title"


def test_one_hot_pixel_does_not_set_the_range(axes):
    values = np.ones((40, 40))
    values[3, 5] = 1e6
    signed_map(axes, values, "")
    assert drawn(axes).norm.vmax == 1


def test_a_map_of_zeros_can_be_drawn(axes):
    signed_map(axes, np.zeros((4, 5)), "")
    error_map(axes, np.zeros((4, 5)), "")
    assert drawn(axes).norm.vmax == 1


def test_errors_that_are_not_known_do_not_set_the_range(axes):
    errors = np.full((4, 5), 2.0)
    errors[0, 0] = np.inf
    error_map(axes, errors, "")
    image = drawn(axes)
    assert (image.norm.vmin, image.norm.vmax) == (0, 2)


def test_only_cells_that_differ_from_zero_are_shown(axes):
    # Student's t at 95% with 19 degrees of freedom is 2.09.
    seen = measured([[1.0, -1.0], [1.0, 0.5]], [[0.47, 0.47], [0.49, 0.1]])
    resolved_map(axes, np.full((8, 8, 3), 128, np.uint8), seen, "")
    opacity = drawn(axes).get_alpha()
    np.testing.assert_array_equal(opacity > 0, [[True, True], [False, True]])
    assert opacity[1, 1] < opacity[0, 0]


def test_cells_lie_where_they_were_pooled(axes):
    # 7 rows in cells of 3 are 3 cells, the last of them cut: it must not be drawn squeezed.
    seen = measured(np.ones((3, 2)), np.zeros((3, 2)))
    resolved_map(axes, np.zeros((7, 6), np.uint8), seen, "")
    assert drawn(axes).get_extent() == [-0.5, 5.5, 8.5, -0.5]
    assert axes.get_ylim() == (6.5, -0.5)


@pytest.mark.parametrize("photo", [np.zeros((12, 16, 3), np.uint8), np.zeros((12, 16), np.uint8)])
def test_a_panel_is_a_png(tmp_path, photo):
    rng = np.random.default_rng(0)
    smoothed = measured(rng.normal(size=(12, 16)), np.ones((12, 16)))
    seen = measured(rng.normal(size=(3, 4)), np.full((3, 4), 0.1))
    panel(tmp_path / "panel.png", photo, rng.normal(size=(3, 12, 16)), smoothed, seen, title="a title")
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1500, 430)
    assert [path.name for path in tmp_path.iterdir()] == ["panel.png"]
