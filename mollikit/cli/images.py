from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The customs of ImageNet models in RGB: mean and std of the training set, and the centre 224/256.
_IMAGENET: dict[str, Any] = {
    "size": (224, 224),
    "crop_fraction": 0.875,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input.

    The shorter side is resized bicubically to size / crop_fraction and the centre is kept; then values
    from 0 to 1 become (value - mean) / std.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels.
    crop_fraction : float
        Share of the shorter side that is kept, in (0, 1].
    mean, std : tuple of float
        For each channel: three for RGB, one for grey.
    layout : str
        "NCHW" or "NHWC".

    Raises
    ------
    ValueError
        If one of them makes no sense.
    """

    size: tuple[int, int]
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(type(n) is int and n > 0 for n in self.size):
            raise ValueError(f"size = {self.size}: give the height and the width in pixels, or one for both")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction = {self.crop_fraction}: it lies above 0 and is at most 1")
        if self.layout not in _LAYOUTS:
            raise ValueError(f"layout = {self.layout!r}: choose between {' and '.join(_LAYOUTS)}")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(
                f"mean = {self.mean}, std = {self.std}: give as many of each as the model's input has "
                "channels, 3 for RGB or 1 for grey"
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < s < math.inf for s in self.std):
            raise ValueError(f"mean = {self.mean}, std = {self.std}: numbers, those of std above 0")

    @classmethod
    def chosen(
        cls, options: Mapping[str, Any], told: Mapping[str, Any], shape: tuple[int | None, ...]
    ) -> Preprocessing:
        """Choose each part: from the options, else from the TOML, else from the model's shape and ImageNet.

        Parameters
        ----------
        options, told : mapping
            What was given, by the names of the fields; None stands for nothing.
        shape : tuple of int or None
            Of the model's input, without the batch axis.

        Raises
        ------
        ValueError
            If the input is no image, or a part does not fit it.
        """
        if len(shape) != 3:
            raise ValueError(
                f"the model's input has the shape {_shown(shape)}, and an image needs three axes: give it "
                "as a .npy or .npz file"
            )
        given = {name: value for name, value in options.items() if value is not None}
        parts: dict[str, Any] = {**told, **given}
        layout = parts.get("layout") or _layout(shape)
        channels, *static = shape if layout == "NCHW" else (shape[2], shape[0], shape[1])
        if "size" not in parts and None not in static:
            parts["size"] = static
        if channels not in (None, 3) and not {"mean", "std"} <= parts.keys():
            raise ValueError(
                f"the model's input {_shown(shape)} has {channels} channels as {layout}, and the default "
                "mean and std are for 3: give --mean and --std (or the right --layout)"
            )
        try:
            parts = {**_IMAGENET, **parts, "layout": layout}
            chosen = cls(
                size=_pair(parts["size"]),
                crop_fraction=float(parts["crop_fraction"]),
                mean=_floats(parts["mean"]),
                std=_floats(parts["std"]),
                layout=str(layout),
            )
        except TypeError as error:
            raise ValueError(f"the preprocessing {parts} holds what is no number: {error}") from error
        chosen._check(shape)
        return chosen

    @property
    def channel_axis(self) -> int:
        """Of the input, without the batch axis."""
        return 0 if self.layout == "NCHW" else 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what `model_input` returns."""
        return (len(self.mean), *self.size) if self.layout == "NCHW" else (*self.size, len(self.mean))

    def _check(self, shape: tuple[int | None, ...]) -> None:
        if any(want not in (None, have) for want, have in zip(shape, self.input_shape, strict=True)):
            raise ValueError(
                f"the preprocessing (size {self.size}, {len(self.mean)} channels, {self.layout}) makes "
                f"{self.input_shape}, and the model's input is {_shown(shape)}: correct --size, --layout, "
                "--mean and --std, or the .toml"
            )

    def crop(self, content: bytes) -> NDArray[np.uint8]:
        """Read an image file's bytes and return what the model will see: (H, W, 3), or (H, W) for grey.

        Raises
        ------
        ImportError
            If Pillow is not installed.
        ValueError
            If it is no image that Pillow reads, or one of more than 8 bits.
        """
        try:
            from PIL import Image, ImageOps
        except ImportError as error:
            raise ImportError("images are read with Pillow: pip install 'mollikit[viz]'") from error
        try:
            with Image.open(io.BytesIO(content)) as opened:
                # Only 8 bits a channel survive the conversion: Pillow cuts others off.
                if opened.mode.startswith(("I", "F")):
                    raise ValueError(
                        f"its pixels are of Pillow's mode {opened.mode!r}, more than 8 bits: give it as .npy"
                    )
                upright = ImageOps.exif_transpose(opened)
                image = upright.convert("RGB" if len(self.mean) == 3 else "L")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("not an image that Pillow can read (or truncated), nor .npy or .npz") from error
        height, width = self.size
        enlargement = max(height / image.height, width / image.width) / self.crop_fraction
        whole = (
            max(width, round(image.width * enlargement)),
            max(height, round(image.height * enlargement)),
        )
        resized = image.resize(whole, Image.Resampling.BICUBIC)
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return np.asarray(resized.crop((left, top, left + width, top + height)))

    def model_input(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise what `crop` returned: float32 in the model's layout, no batch axis."""
        pixels = crop if crop.ndim == 3 else crop[..., None]
        normalised = (pixels / 255 - self.mean) / self.std
        return np.ascontiguousarray(
            normalised.transpose(2, 0, 1) if self.layout == "NCHW" else normalised, np.float32
        )

    def as_options(self) -> list[str]:
        """Return the words that give the same preprocessing on the command line."""
        words = []
        for name, value in asdict(self).items():
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
        return words


def sides(size: Any, shape: tuple[int, ...], layout: str | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width that are asked for by one number or two, and those of an image's shape."""
    height, width = shape[1:] if (layout or _layout(shape)) == "NCHW" else shape[:2]
    return _pair(size), (height, width)


def _layout(shape: tuple[int | None, ...]) -> str:
    return "NHWC" if shape[2] in (1, 3) and shape[0] not in (1, 3) else "NCHW"


def _pair(size: Any) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) else (size,)
    return pair * 2 if len(pair) == 1 else pair  # __post_init__ counts them


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in (values if isinstance(values, Sequence) else (values,)))


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
