"""The figures of a comparison, as SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.comparison.comparison import Comparison
from mollikit.comparison.rounds import LEVEL
from mollikit.pictures import SIGNED, is_image, summed

# Drawn in these colours and written as the page's own: (in matplotlib, in CSS).
_INK, _LINE = ("#010203", "var(--ink)"), ("#040506", "var(--line)")
_SERIES = [(f"#0708{k:02x}", f"var(--s{k})") for k in range(8)]
_WIDE, _NARROW = (10.0, 4.2), (5.4, 3.6)


@dataclass(frozen=True)
class Drawing:
    """One figure: its name, what it shows, and its SVG."""

    name: str
    caption: str
    svg: str
    wide: bool = False


def drawings(comparison: Comparison, quantity: str) -> list[Drawing]:
    """Draw every figure of a quantity; the maps where it is a picture."""
    last = comparison.evaluations[-1]
    made = [
        Drawing(
            "error",
            "Relative error against evaluations, with one standard error. Dotted: the exponent -1/2 through "
            f"{comparison.baseline}; dashed: the wanted error.",
            _svg(_errors, comparison, quantity, _NARROW),
        ),
        Drawing(
            "gain",
            f"How many times fewer evaluations than {comparison.baseline}, at {last}, with 95% intervals.",
            _svg(_gains, comparison, quantity, _NARROW),
        ),
        Drawing(
            "seconds",
            f"Seconds to an error of {comparison.error:.3g} on this machine, the drawing of points included.",
            _svg(_seconds, comparison, quantity, _NARROW),
        ),
        Drawing(
            "coverage",
            f"Share of the truths that the 95% intervals cover, with two standard errors over "
            f"{comparison.rounds} rounds.",
            _svg(_coverage, comparison, quantity, _NARROW),
        ),
    ]
    if is_image(comparison.truth[quantity].shape):
        made.append(
            Drawing(
                "maps",
                f"The mean of all estimates, and the first estimate of each scheme at "
                f"{comparison.evaluations[0]} evaluations, channels summed, in one scale of colours.",
                _svg(_maps, comparison, quantity, _WIDE),
                wide=True,
            )
        )
    return made


def _svg(
    draw: Callable[[Any, Comparison, str], None],
    comparison: Comparison,
    quantity: str,
    size: tuple[float, float],
) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    draw(figure, comparison, quantity)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode()
    for drawn, written in (_INK, _LINE, *_SERIES):
        text = text.replace(drawn, written)
    return text[text.index("<svg") :]


def _axes(figure: Any) -> Any:
    axes = figure.subplots()
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE[0])
    axes.tick_params(which="both", colors=_INK[0], labelsize=9, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_INK[0])
        axis.offsetText.set_color(_INK[0])
    axes.grid(color=_LINE[0], linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _errors(figure: Any, comparison: Comparison, quantity: str) -> None:
    from matplotlib.ticker import NullFormatter

    axes, numbers = _axes(figure), comparison.evaluations
    for k, scheme in enumerate(comparison.schemes):
        rows = [comparison.row(scheme, n, quantity) for n in numbers]
        axes.errorbar(
            numbers,
            [row.error for row in rows],
            [row.error_spread for row in rows],
            color=_SERIES[k % len(_SERIES)][0],
            marker="o",
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=scheme,
        )
    first = comparison.row(comparison.baseline, numbers[0], quantity).error
    axes.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="relative error")
    if np.isfinite(first):
        guide = np.array([numbers[0], numbers[-1]], float)
        axes.plot(guide, first * np.sqrt(numbers[0] / guide), color=_INK[0], linewidth=0.9, linestyle=":")
    axes.axhline(comparison.error, color=_INK[0], linewidth=0.9, linestyle="--")
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.xaxis.set_minor_formatter(NullFormatter())
    _plain_ticks(axes.yaxis)
    axes.legend(frameon=False, labelcolor=_INK[0], fontsize=8, ncols=2)


def _plain_ticks(axis: Any) -> None:
    """Write a logarithmic axis in plain numbers: powers of ten alone where it spans much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    plain = FuncFormatter(lambda value, _: f"{value:.2g}" if value < 100 else f"{value:.0f}")
    narrow = high / low < 30
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())


def _dots(figure: Any, comparison: Comparison) -> tuple[Any, Any]:
    axes, schemes = _axes(figure), comparison.schemes
    axes.set_yticks(range(len(schemes)), schemes)
    axes.set_ylim(len(schemes) - 0.4, -0.6)
    return axes, enumerate(schemes)


def _gains(figure: Any, comparison: Comparison, quantity: str) -> None:
    axes, schemes = _dots(figure, comparison)
    for k, scheme in schemes:
        row = comparison.row(scheme, comparison.evaluations[-1], quantity)
        colour = _SERIES[k % len(_SERIES)][0]
        axes.plot([row.gain_low, row.gain_high], [k, k], color=colour, linewidth=2)
        axes.plot(row.gain, k, "o", color=colour, markersize=6)
        axes.annotate(
            f"{row.gain:.3g}", (row.gain, k), (0, 6), textcoords="offset points", color=_INK[0], fontsize=8
        )
    axes.axvline(1, color=_INK[0], linewidth=0.9, linestyle="--")
    axes.set(xscale="log", xlabel="variance-reduction factor")
    _plain_ticks(axes.xaxis)


def _seconds(figure: Any, comparison: Comparison, quantity: str) -> None:
    axes, schemes = _dots(figure, comparison)
    for k, scheme in schemes:
        seconds = comparison.prospect(scheme, quantity).seconds
        if np.isfinite(seconds):
            axes.barh(k, seconds, color=_SERIES[k % len(_SERIES)][0], height=0.55)
            axes.annotate(
                f" {seconds:.3g}", (seconds, k), va="center", color=_INK[0], fontsize=8, annotation_clip=False
            )
    axes.set_xlabel("seconds")
    axes.margins(x=0.14)
    axes.set_xlim(left=0)


def _coverage(figure: Any, comparison: Comparison, quantity: str) -> None:
    axes, schemes = _dots(figure, comparison)
    for k, scheme in schemes:
        row = comparison.row(scheme, comparison.evaluations[-1], quantity)
        axes.errorbar(
            row.coverage,
            k,
            xerr=2 * row.coverage_spread,
            fmt="o",
            color=_SERIES[k % len(_SERIES)][0],
            markersize=6,
            capsize=3,
        )
    axes.axvline(LEVEL, color=_INK[0], linewidth=0.9, linestyle="--")
    axes.set_xlabel("coverage of 95% intervals")
    axes.set_xlim(min(axes.get_xlim()[0], 0.9), 1.005)


def _maps(figure: Any, comparison: Comparison, quantity: str) -> None:
    schemes = comparison.schemes
    columns = min(5, 1 + len(schemes))
    lines = -(-(1 + len(schemes)) // columns)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    truth = comparison.truth[quantity]
    shown = {f"mean of {comparison.rounds} rounds": truth} | {
        scheme: comparison.examples[scheme, quantity] for scheme in schemes
    }
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    reach = float(np.quantile(np.abs(summed(truth)), 0.995)) or 1.0
    for axes, (title, values) in zip(panels, shown.items(), strict=False):
        axes.imshow(summed(values), cmap=SIGNED, vmin=-reach, vmax=reach, interpolation="nearest")
        axes.set_title(title, fontsize=10, color=_INK[0])
        axes.set_axis_off()
