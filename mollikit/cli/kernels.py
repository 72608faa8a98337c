"""``mollikit kernels``: the table of kernels with their axioms, and a picture of each with its transform."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mollikit import Kernel, Width
from mollikit.atomic import replacing
from mollikit.axioms import Report, check, verdict
from mollikit.cli import options
from mollikit.cli.command import Command
from mollikit.cli.words import KERNELS

_COLUMNS = ("kernel", "support", "C^k", "moments below", "variance", "Fisher", "mollifier", "appr. identity")
_PANELS_IN_A_ROW = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``mollikit kernels``."""
    parser.description = "Print each kernel with the axioms of a mollifier and of an approximate identity."
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw each density and its transform, as PNG"
    )
    parser.add_argument("--json", action="store_true", help="every axiom with its number, as JSON")
    options.debug(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the table of the kernels, in their standard form, and draw them where that is asked for."""
    made = {name: make(Width(1.0)) for name, make in KERNELS.items()}
    if asked.plot is not None:
        plot(asked.plot, made)
    reports = {name: check(kernel) for name, kernel in made.items()}
    if asked.json:
        print(json.dumps([_plain(row) for report in reports.values() for row in report.rows()], indent=1))
    else:
        print(table([_COLUMNS, *(_row(name, made[name], report) for name, report in reports.items())]))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of words out in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def plot(path: Path, kernels: Mapping[str, Kernel]) -> None:
    """Draw each density, and its characteristic function below it, widths matched by their quartiles.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    t, omega = np.linspace(-4, 4, 801), np.linspace(0, 8, 241)
    units = {name: float(kernel.inverse_cdf(0.75)) for name, kernel in kernels.items()}
    densities = {name: unit * kernels[name].density(unit * t) for name, unit in units.items()}
    highest = max(float(density.max()) for density in densities.values())
    lines = -(-len(kernels) // _PANELS_IN_A_ROW)
    figure = Figure(figsize=(2.7 * _PANELS_IN_A_ROW, 3.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "Kernels of equal quartiles (above) and their characteristic functions (below)", fontsize=11
    )
    panels = figure.subplots(2 * lines, _PANELS_IN_A_ROW, sharey="row", squeeze=False)
    for column in range(len(kernels) % _PANELS_IN_A_ROW or _PANELS_IN_A_ROW, _PANELS_IN_A_ROW):
        for axes in panels[-2:, column]:
            axes.set_axis_off()
    for k, (name, kernel) in enumerate(kernels.items()):
        line, column = divmod(k, _PANELS_IN_A_ROW)
        above, below = panels[2 * line, column], panels[2 * line + 1, column]
        above.plot(t, densities[name], color="C0", linewidth=1.3)
        above.fill_between(t, densities[name], color="C0", alpha=0.15, linewidth=0)
        above.set_title(name, fontsize=10)
        below.plot(omega, kernel.characteristic_function(omega / units[name]), color="C1", linewidth=1.3)
        below.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        above.set_ylim(0, 1.08 * highest)
        for axes, label in ((above, "t / quartile"), (below, "frequency × quartile")):
            axes.set_xlabel(label, fontsize=8)
            axes.tick_params(labelsize=7)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _row(name: str, kernel: Kernel, report: Report) -> tuple[str, ...]:
    numbers = (
        report["compact support"].value,
        report["smoothness"].value,
        report["integrable tail"].value,
        kernel.variance,
        kernel.fisher_information,
    )
    reach, *rest = (f"{number:.6g}" for number in numbers)
    verdicts = verdict(report.mollifier), verdict(report.approximate_identity)
    return (name, f"+-{reach}", *rest, *verdicts)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row fit for JSON, which has no infinity."""
    return {k: str(v) if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


COMMAND = Command("kernels", "the kernels, with the axioms that they satisfy", add_arguments, run)
