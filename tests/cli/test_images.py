"""How a photo becomes a model's input: checked against closed forms."""

import io

import numpy as np
import pytest
from PIL import Image

from mollikit.cli.images import Preprocessing

OPEN = (3, None, None)


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **options)
    return file.getvalue()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_imagenet_customs_where_nothing_is_said():
    assert Preprocessing.chosen({}, {}, OPEN) == Preprocessing(
        (224, 224), 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "NCHW"
    )


def test_options_win_over_the_toml_and_that_over_the_defaults():
    told = {"size": [32, 48], "mean": [0.1, 0.2, 0.3], "layout": "NHWC"}
    options = {"size": [64], "mean": None, "std": None, "layout": None, "crop_fraction": 0.5}
    chosen = Preprocessing.chosen(options, told, (None, None, None))
    assert chosen == Preprocessing((64, 64), 0.5, (0.1, 0.2, 0.3), (0.229, 0.224, 0.225), "NHWC")


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [
        ((3, 96, 128), "NCHW", (96, 128)),
        ((96, 128, 3), "NHWC", (96, 128)),
        ((None, None, 3), "NHWC", (224, 224)),
        ((3, 3, 3), "NCHW", (3, 3)),
        ((None, None, None), "NCHW", (224, 224)),
    ],
)
def test_size_and_layout_follow_the_model(shape, layout, size):
    chosen = Preprocessing.chosen({}, {}, shape)
    assert (chosen.layout, chosen.size) == (layout, size)


def test_one_channel_has_no_imagenet_customs():
    with pytest.raises(ValueError, match=r"1 channels.*--mean and --std"):
        Preprocessing.chosen({}, {}, (1, 28, 28))
    chosen = Preprocessing.chosen({"mean": [0.5], "std": [0.2]}, {}, (1, 28, 28))
    assert chosen.input_shape == (1, 28, 28)


def test_a_photo_of_the_right_size_is_normalised_and_nothing_else():
    pixels = noise(12, 10, 3)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    same = Preprocessing((12, 10), 1.0, mean, std, "NHWC")
    np.testing.assert_array_equal(same.crop(png(pixels)), pixels)
    for c in range(3):
        expected = ((pixels[..., c] / 255 - mean[c]) / std[c]).astype(np.float32)
        np.testing.assert_array_equal(same.model_input(pixels)[..., c], expected)
    turned = Preprocessing((12, 10), 1.0, mean, std, "NCHW").model_input(pixels)
    np.testing.assert_array_equal(turned, same.model_input(pixels).transpose(2, 0, 1))


def test_the_centre_is_kept():
    pixels = noise(16, 24, 3)
    # 8 of the shorter side's 16 at their own resolution: no pixel is interpolated.
    cropped = Preprocessing((8, 8), 0.5, (0.0,) * 3, (1.0,) * 3, "NCHW").crop(png(pixels))
    np.testing.assert_array_equal(cropped, pixels[4:12, 8:16])


def test_grey():
    pixels = noise(6, 6)
    grey = Preprocessing((6, 6), 1.0, (0.5,), (0.25,), "NCHW")
    np.testing.assert_array_equal(grey.crop(png(pixels)), pixels)
    np.testing.assert_array_equal(
        grey.model_input(pixels), ((pixels / 255 - 0.5) / 0.25).astype(np.float32)[None]
    )


def test_a_photo_is_turned_as_its_camera_says():
    pixels = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture is to be turned clockwise
    upright = Preprocessing((8, 8), 1.0, (0.0,) * 3, (1.0,) * 3, "NCHW").crop(png(pixels, exif=exif))
    np.testing.assert_array_equal(upright, np.rot90(pixels, -1))


@pytest.mark.parametrize("size", [(7, 50), (50, 7), (224, 224), (1, 1)])
@pytest.mark.parametrize("photo", [(5, 300), (300, 5), (1, 1)])
def test_every_photo_fills_every_size(size, photo):
    cropped = Preprocessing(size, 0.875, (0.0,) * 3, (1.0,) * 3, "NCHW").crop(png(noise(*photo, 3)))
    assert cropped.shape == (*size, 3)


def test_its_words_give_it_again():
    from mollikit.cli import build_parser

    chosen = Preprocessing((12, 10), 0.7, (127 / 255, 0.2, -0.3), (1 / 3, 0.5, 0.6), "NHWC")
    words = ["explain", "m.onnx", "p.png", *chosen.as_options(), "--out", "o"]
    asked = vars(build_parser().parse_args(words))
    assert Preprocessing.chosen(asked_preprocessing(asked), {}, (None, None, 3)) == chosen


def asked_preprocessing(asked):
    return {name: asked[name] for name in ("size", "crop_fraction", "mean", "std", "layout")}
