"""How an Estimate shows itself in a notebook."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from mollikit.pictures import error_map, is_image, is_picture, signed_map

if TYPE_CHECKING:
    from mollikit.estimate import Estimate


def estimate_png(estimate: Estimate) -> bytes | None:
    """Draw the gradient, channels summed, and each view that is a picture with its standard error.

    None for what is no image, or without matplotlib.
    """
    gradient = estimate.gradient
    if isinstance(gradient, dict) or not is_image(gradient.shape):
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    views = {name: view for name, view in estimate.views.items() if is_picture(view.value.shape)}
    columns = 1 + 2 * len(views)
    figure = Figure(figsize=(3.6 * columns, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    first, *rest = figure.subplots(1, columns, squeeze=False)[0]
    signed_map(first, gradient, f"smoothed, channels summed, error {_error(estimate.relative_error)}")
    for (name, view), drawn, error in zip(views.items(), rest[::2], rest[1::2], strict=True):
        signed_map(drawn, view.value, f"{name}, error {_error(view.relative_error)}")
        error_map(error, view.standard_error, f"{name}: standard error")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def estimate_html(estimate: Estimate) -> str:
    """A table of what is known of an estimate, with its picture where it has one."""
    rows: list[tuple[str, Any]] = [
        ("relative error, whole map", _error(estimate.relative_error)),
        *((f"relative error, {name}", _error(view.relative_error)) for name, view in estimate.views.items()),
        ("evaluations", f"{estimate.n_evaluations} in {estimate.n_groups} independent groups"),
        ("seconds", f"{estimate.seconds:.2f}"),
        ("stopped by", estimate.stopped + (" (partial)" if estimate.partial else "")),
        ("kernel", estimate.provenance["kernels"]),
        ("sampler", estimate.provenance["sampler"]),
        ("seed", f"{estimate.provenance['seed']}, item {estimate.provenance['item']}"),
    ]
    if estimate.output is not None:
        value, error = float(estimate.output.value), float(estimate.output.standard_error)
        rows.insert(0, ("smoothed output", f"{value:.4g} ± {error:.2g}"))
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>"
        f"{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    picture = estimate_png(estimate)
    image = (
        ""
        if picture is None
        else f"<img alt='smoothed gradient' src='data:image/png;base64,{base64.b64encode(picture).decode()}'>"
    )
    style = "display:flex;flex-wrap:wrap;gap:1em;align-items:center"
    return f"<div style='{style}'>{image}<table>{body}</table></div>"


def _error(error: float) -> str:
    return f"{100 * error:.3g}%" if np.isfinite(error) else "not resolved yet"
