"""Photos that come with scikit-image and scikit-learn, and their way into EfficientNet-Lite0."""

from __future__ import annotations

from typing import Any

import numpy as np
import skimage.data
from efficientnet_lite0 import CROP_FRACTION, MEAN, SIZE, STD
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

Photo = NDArray[np.uint8]


def chelsea() -> Photo:
    """Return a cat, (300, 451, 3)."""
    return _photo(skimage.data.chelsea())


def coffee() -> Photo:
    """Return a cup of espresso on a table, (400, 600, 3)."""
    return _photo(skimage.data.coffee())


def china() -> Photo:
    """Return a pavilion of the Summer Palace in Beijing, (427, 640, 3)."""
    return _photo(load_sample_image("china.jpg"))


def _photo(pixels: NDArray[Any]) -> Photo:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 RGB (H, W, 3), got {pixels.dtype} {pixels.shape}")
    return np.array(pixels)  # some of them arrive read-only


def centre_crop(photo: Photo) -> Photo:
    """Return the part of a photo that the model sees, at the model's size: uint8 (224, 224, 3)."""
    image = Image.fromarray(_photo(photo))
    height, width = SIZE
    enlargement = max(height / image.height, width / image.width) / CROP_FRACTION
    resized = image.resize(
        (round(image.width * enlargement), round(image.height * enlargement)), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def model_input(photo: Photo) -> NDArray[np.float32]:
    """Return a photo as the model's input: float32 (3, 224, 224), normalised, no batch axis."""
    normalised = (centre_crop(photo) / 255 - MEAN) / STD
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), np.float32)
