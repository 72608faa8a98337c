"""How an Estimate shows itself in a notebook."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mollikit.pictures import error_map, is_image, is_picture, signed_map

if TYPE_CHECKING:
    from mollikit.estimate import Estimate
    from mollikit.surrogates import BiasedEstimate, TwoLevelEstimate
    from mollikit.surrogates.risk import StatedRisk

# Something that draws itself on matplotlib's axes.
Panel = Callable[[Any], None]


def estimate_png(estimate: Estimate) -> bytes | None:
    """Draw the gradient, channels summed, and each view that is a picture with its standard error.

    None for what is no image, or without matplotlib.
    """
    error = f"error {_error(estimate.relative_error)}"
    panels = [_map(estimate.gradient, f"smoothed, channels summed, {error}")]
    for name, view in estimate.views.items():
        if is_picture(view.value.shape):
            panels.append(_map(view.value, f"{name}, error {_error(view.relative_error)}"))
            panels.append(_errors(view.standard_error, f"{name}: standard error"))
    return _png(estimate.gradient, panels)


def biased_png(estimate: BiasedEstimate) -> bytes | None:
    """Draw a biased gradient, channels summed, and each view that is a picture; they have no error maps."""
    panels = [_map(estimate.gradient, f"biased; channels summed\nmap's error {_risk(estimate)}")]
    panels += [
        _map(view.value, f"{name}, biased\nerror {_risk(view)}")
        for name, view in estimate.views.items()
        if is_picture(view.value.shape)
    ]
    return _png(estimate.gradient, panels)


def two_level_png(estimate: TwoLevelEstimate) -> bytes | None:
    """Draw the gradient, channels summed; its standard error belongs to the coordinates, not to sums."""
    error = f"error {_error(estimate.relative_error)}"
    return _png(estimate.gradient, [_map(estimate.gradient, f"smoothed, channels summed, {error}")])


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
        _seed(estimate),
    ]
    if estimate.output is not None:
        value, error = float(estimate.output.value), float(estimate.output.standard_error)
        rows.insert(0, ("smoothed output", f"{value:.4g} ± {error:.2g}"))
    return _card(rows, estimate_png(estimate))


def biased_html(estimate: BiasedEstimate) -> str:
    """A table of what is known of a biased estimate, its bias first, with its picture where it has one."""
    whole = f"{estimate.n_folds} folds" + (" (partial)" if estimate.partial else "")
    unbiased = estimate.provenance["unbiased"]
    rows = [
        ("biased", estimate.biased),
        ("relative error, whole map, by estimated risk", _risk(estimate)),
        *((f"relative error, {name}, likewise", _risk(view)) for name, view in estimate.views.items()),
        ("cost in gradients", f"{estimate.n_evaluations:.4g}"),
        ("unbiased gradients among them", f"{estimate.n_gradients} in {whole}"),
        ("seconds", f"{estimate.seconds:.2f}"),
        ("kernel", unbiased["kernels"]),
        ("sampler", unbiased["sampler"]),
        _seed(estimate),
    ]
    return _card(rows, biased_png(estimate))


def two_level_html(estimate: TwoLevelEstimate) -> str:
    """A table of what is known of an estimate from two levels, with its picture where it has one."""
    difference = estimate.difference
    coarse = "its mean was given" if estimate.coarse is None else f"{estimate.coarse.n_evaluations} gradients"
    rows = [
        ("relative error, whole map", _error(estimate.relative_error)),
        ("cost in gradients", f"{estimate.n_evaluations:.4g}" + (" (partial)" if estimate.partial else "")),
        ("the cheaper model", coarse),
        ("the difference", f"{difference.n_evaluations} common points"),
        ("seconds", f"{estimate.seconds:.2f}"),
        ("kernel", difference.provenance["kernels"]),
        ("sampler", difference.provenance["sampler"]),
        _seed(estimate),
    ]
    return _card(rows, two_level_png(estimate))


def _card(rows: Sequence[tuple[str, Any]], picture: bytes | None) -> str:
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>"
        f"{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    image = (
        ""
        if picture is None
        else f"<img alt='smoothed gradient' src='data:image/png;base64,{base64.b64encode(picture).decode()}'>"
    )
    style = "display:flex;flex-wrap:wrap;gap:1em;align-items:center"
    return f"<div style='{style}'>{image}<table>{body}</table></div>"


def _png(gradient: Any, panels: Sequence[Panel]) -> bytes | None:
    if isinstance(gradient, dict) or not is_image(gradient.shape):
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _map(values: Any, title: str) -> Panel:
    return lambda axes: signed_map(axes, values, title)


def _errors(errors: Any, title: str) -> Panel:
    return lambda axes: error_map(axes, errors, title)


def _seed(estimate: Any) -> tuple[str, str]:
    return "seed", f"{estimate.provenance['seed']}, item {estimate.provenance['item']}"


def _error(error: float) -> str:
    return f"{100 * error:.3g}%" if error < float("inf") else "not resolved yet"


def _risk(stated: StatedRisk) -> str:
    return stated.told if stated.signal > 0 else "not resolved yet"
