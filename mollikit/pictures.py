"""Pictures of gradients, drawn with matplotlib's object interface: no global state, no window."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mollikit.atomic import replacing

if TYPE_CHECKING:
    from mollikit.measurement import Measurement
    from mollikit.surrogates import BiasedView

SIGNED = "RdBu_r"


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can be drawn as it is: (H, W)."""
    return len(shape) == 2 and min(shape) > 1


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape reads as one picture: (H, W), or 1, 3 or 4 channels before or behind."""
    if len(shape) == 3:
        return shape[0] in (1, 3, 4) or shape[-1] in (1, 3, 4)
    return is_picture(shape)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis that holds an image's channels, or None for (H, W)."""
    if len(shape) == 2:
        return None
    return 0 if shape[0] in (1, 3, 4) else 2


def summed(values: NDArray[Any]) -> NDArray[Any]:
    """An image's values with its channels summed, (H, W)."""
    axis = channel_axis(values.shape)
    return values if axis is None else values.sum(axis=axis)


def signed_map(axes: Any, values: NDArray[Any], title: str, *, bar: Any = None) -> None:
    """Draw values about zero, channels summed: blue below, red above; 99.5% of the pixels set the range.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    values : ndarray
        An image, as `is_image` has it.
    title : str
    bar : matplotlib.axes.Axes, optional
        Where the colour bar is drawn; beside the picture by default.
    """
    picture = summed(values)
    reach = _reach(picture)
    image = axes.imshow(picture, cmap=SIGNED, vmin=-reach, vmax=reach, interpolation="nearest")
    _finish(axes, image, title, bar)


def error_map(axes: Any, errors: NDArray[Any], title: str, *, bar: Any = None) -> None:
    """Draw standard errors, (H, W), from zero to that of 99.5% of the pixels."""
    image = axes.imshow(errors, cmap="magma", vmin=0, vmax=_reach(errors), interpolation="nearest")
    _finish(axes, image, title, bar)


def resolved_map(
    axes: Any, photo: NDArray[Any], seen: Measurement, title: str, *, level: float = 0.95, bar: Any = None
) -> None:
    """Draw a view over a pale photo, the stronger the more opaque, and only where zero is ruled out.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    photo : ndarray
        (H, W) or (H, W, 3), values 0 to 255.
    seen : Measurement
        (h, w): one value for each cell of the photo.
    title : str
    level : float
        Cells whose confidence interval of this level holds zero are left blank.
    bar : matplotlib.axes.Axes, optional
        Where the colour bar is drawn.
    """
    low, high = seen.interval(level)
    _laid_over(axes, photo, seen.value, (low > 0) | (high < 0), title, bar)


def _laid_over(
    axes: Any, photo: NDArray[Any], values: NDArray[Any], shown: NDArray[Any] | bool, title: str, bar: Any
) -> None:
    grey = photo if photo.ndim == 2 else photo @ np.array([0.299, 0.587, 0.114])
    # From grey to white, so that both colours stay legible on it.
    axes.imshow(grey, cmap="gray", vmin=-140, vmax=255)
    reach = _reach(values)
    opacity = np.clip(np.abs(values) / reach, 0, 1) ** 0.5 * shown
    height, width = photo.shape[:2]
    # The last cells are cut by the edge where their size does not divide the photo's.
    cell = (-(-height // values.shape[0]), -(-width // values.shape[1]))
    extent = (-0.5, cell[1] * values.shape[1] - 0.5, cell[0] * values.shape[0] - 0.5, -0.5)
    image = axes.imshow(
        values,
        cmap=SIGNED,
        vmin=-reach,
        vmax=reach,
        alpha=opacity,
        extent=extent,
        interpolation="nearest",
    )
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    _finish(axes, image, title, bar)


def panel(
    path: str | os.PathLike[str],
    photo: NDArray[Any],
    raw: NDArray[Any],
    smoothed: Measurement,
    seen: Measurement,
    *,
    title: str = "",
    what: str = "what the model sees",
) -> None:
    """Write one picture: the photo, its raw gradient, the smoothed one, a view of it, and the view's error.

    Parameters
    ----------
    path : path-like
        A PNG file, written whole or not at all.
    photo : ndarray
        (H, W) or (H, W, 3), values 0 to 255.
    raw : ndarray
        The gradient at the clean input, an image.
    smoothed : Measurement
        The smoothed gradient, channels summed, (H, W).
    seen : Measurement
        The view that is laid over the photo, (h, w): channels summed and pooled.
    title, what : str
        Said above the picture, and above the photo.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=13)
    maps, bars = figure.subplots(2, 5, gridspec_kw={"height_ratios": [1, 0.045]})
    maps[0].imshow(photo, cmap="gray" if photo.ndim == 2 else None)
    maps[0].set_title(what, fontsize=10.5)
    maps[0].set_axis_off()
    bars[0].set_axis_off()
    signed_map(maps[1], raw, "raw gradient", bar=bars[1])
    told = f"smoothed, channels summed\nerror {_told(smoothed.relative_error)}"
    signed_map(maps[2], smoothed.value, told, bar=bars[2])
    cell = -(-photo.shape[0] // seen.value.shape[0])
    resolved_map(
        maps[3],
        photo,
        seen,
        f"the same in {cell}x{cell} cells\nerror {_told(seen.relative_error)}",
        bar=bars[3],
    )
    error_map(maps[4], seen.standard_error, "standard error of the cells", bar=bars[4])
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=100)


def biased_panel(
    path: str | os.PathLike[str],
    photo: NDArray[Any],
    raw: NDArray[Any],
    smoothed: BiasedView,
    seen: BiasedView,
    *,
    title: str = "",
    biased: str = "",
    what: str = "what the model sees",
) -> None:
    """Write one picture of a biased estimate: as `panel`, but no cell has an error of its own to go blank by.

    Parameters
    ----------
    path, photo, raw, title, what
        As of `panel`.
    smoothed, seen : BiasedView
        The gradient with its channels summed, (H, W), and the view that is laid over the photo, (h, w).
    biased : str
        What makes it biased: said in the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.4, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}\nbiased: {biased}", fontsize=12)
    maps, bars = figure.subplots(2, 4, gridspec_kw={"height_ratios": [1, 0.045]})
    maps[0].imshow(photo, cmap="gray" if photo.ndim == 2 else None)
    maps[0].set_title(what, fontsize=10.5)
    maps[0].set_axis_off()
    bars[0].set_axis_off()
    signed_map(maps[1], raw, "raw gradient", bar=bars[1])
    told = f"smoothed, channels summed\nbiased, error {smoothed.told}"
    signed_map(maps[2], smoothed.value, told, bar=bars[2])
    cell = -(-photo.shape[0] // seen.value.shape[0])
    told = f"the same in {cell}x{cell} cells\nbiased, error {seen.told}"
    _laid_over(maps[3], photo, seen.value, True, told, bars[3])
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=100)


def _reach(values: NDArray[Any]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return (float(np.quantile(finite, 0.995)) if finite.size else 0.0) or 1.0


def _finish(axes: Any, image: Any, title: str, bar: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10.5)
    axes.set_axis_off()
    # The bar shows the colours at full opacity.
    colours = ScalarMappable(image.norm, image.cmap)
    if bar is None:
        drawn = axes.figure.colorbar(colours, ax=axes, shrink=0.85)
    else:
        drawn = axes.figure.colorbar(colours, cax=bar, orientation="horizontal")
    drawn.outline.set_visible(False)
    drawn.locator = MaxNLocator(3)
    drawn.formatter.set_powerlimits((-2, 3))
    drawn.formatter.set_useMathText(True)
    drawn.update_ticks()
    drawn.ax.tick_params(labelsize=8, length=2)
    drawn.ax.yaxis.get_offset_text().set_fontsize(8)
    drawn.ax.xaxis.get_offset_text().set_fontsize(8)


def _told(error: float) -> str:
    return f"{error:.0%}" if np.isfinite(error) else "not resolved"
