"""Pictures of gradients, drawn with matplotlib's object interface: no global state, no window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mollikit.atomic import replacing

if TYPE_CHECKING:
    from mollikit.estimate import Measurement


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape reads as one picture: (H, W), or 1, 3 or 4 channels before or behind."""
    if len(shape) == 3:
        return shape[0] in (1, 3, 4) or shape[-1] in (1, 3, 4)
    return len(shape) == 2 and min(shape) > 1


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis that holds an image's channels, or None for (H, W)."""
    if len(shape) == 2:
        return None
    return 0 if shape[0] in (1, 3, 4) else 2


def summed(values: NDArray[Any]) -> NDArray[Any]:
    """An image's values with its channels summed, (H, W)."""
    axis = channel_axis(values.shape)
    return values if axis is None else values.sum(axis=axis)


def signed_map(axes: Any, values: NDArray[Any], title: str) -> None:
    """Draw values about zero, channels summed: blue below, red above; 99.5% of the pixels set the range."""
    picture = summed(values)
    reach = float(np.quantile(np.abs(picture), 0.995)) or 1.0
    image = axes.imshow(picture, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    _finish(axes, image, title)


def error_map(axes: Any, errors: NDArray[Any], title: str) -> None:
    """Draw standard errors, (H, W), from zero to that of 99.5% of the pixels."""
    finite = errors[np.isfinite(errors)]
    reach = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    image = axes.imshow(errors, cmap="magma", vmin=0, vmax=reach or 1.0, interpolation="nearest")
    _finish(axes, image, title)


def panel(
    path: str | os.PathLike[str],
    photo: NDArray[Any] | None,
    raw: NDArray[Any],
    smoothed: Measurement,
    seen: Measurement,
    titles: Sequence[str] = ("", ""),
) -> None:
    """Write one picture: the photo, its raw gradient, the smoothed one, a resolved view of it, its error.

    Parameters
    ----------
    path : path-like
        A PNG file, written whole or not at all.
    photo : ndarray, optional
        (H, W) or (H, W, 3), as matplotlib shows it.
    raw : ndarray
        The gradient at the clean input, an image.
    smoothed : Measurement
        The smoothed gradient, channels summed, (H, W).
    seen : Measurement
        The view that the picture shows, (h, w): channels summed and pooled.
    titles : (str, str)
        What is said above the picture and under the photo.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4 + (photo is not None)
    figure = Figure(figsize=(3.3 * columns, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(titles[0], fontsize=11)
    axes = list(figure.subplots(1, columns))
    if photo is not None:
        first = axes.pop(0)
        first.imshow(photo, cmap="gray" if photo.ndim == 2 else None)
        first.set_title(titles[1], fontsize=10)
        first.set_axis_off()
    signed_map(axes[0], raw, "raw gradient")
    signed_map(axes[1], smoothed.value, f"smoothed (error {_told(smoothed.relative_error)})")
    signed_map(axes[2], seen.value, f"smoothed, pooled (error {_told(seen.relative_error)})")
    error_map(axes[3], seen.standard_error, "standard error of the pooled map")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _finish(axes: Any, image: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.get_offset_text().set_fontsize(7)


def _told(error: float) -> str:
    return f"{error:.0%}" if np.isfinite(error) else "not resolved"
