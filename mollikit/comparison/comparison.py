from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.atomic import replacing
from mollikit.comparison.rounds import MAP


@dataclass(frozen=True)
class Row:
    """One scheme at one number of evaluations, for the whole map or a view.

    Attributes
    ----------
    scheme, quantity : str
        The quantity is "map", or a view's name.
    evaluations, groups : int
        Of one estimate.
    error, error_spread : float
        Relative L2 error, measured between independent estimates, and the standard error of that.
    gain, gain_low, gain_high : float
        Variance-reduction factor over the baseline at equal evaluations, and its 95% interval.
    coverage, coverage_spread : float
        Share of the truths in the 95% intervals, and its standard error.
    stated : float
        Error that the estimates state of themselves, over the measured one.
    """

    scheme: str
    quantity: str
    evaluations: int
    groups: int
    error: float
    error_spread: float
    gain: float
    gain_low: float
    gain_high: float
    coverage: float
    coverage_spread: float
    stated: float


@dataclass(frozen=True)
class Prospect:
    """What a scheme costs for a quantity.

    Attributes
    ----------
    scheme, quantity : str
    slope, slope_spread : float
        Exponent of the error in the evaluations, where there are two numbers of them; -1/2 is Monte Carlo's.
    seconds_per_evaluation : float
        The drawing of the points included; of the fastest round, on this machine.
    evaluations, seconds : float
        To the wanted error: interpolated between the numbers that were measured, by the exponent -1/2
        beyond them.
    """

    scheme: str
    quantity: str
    slope: float
    slope_spread: float
    seconds_per_evaluation: float
    evaluations: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Sampling schemes side by side at equal evaluations, on one model and one input.

    Attributes
    ----------
    rows : sequence of Row
    prospects : sequence of Prospect
    recommendation : str
        One sentence.
    recommended : str
        The scheme that it names.
    baseline : str
        The scheme that gains are measured against.
    error : float
        The wanted relative error.
    quantity : str
        What the recommendation is about: "map", or a view's name.
    rounds, n_evaluations : int
        Estimates of each scheme at each number of evaluations, and all the gradients that this took.
    seconds : float
    left_out : mapping of str to str
        Schemes that do not suit the input, and why.
    truth : mapping of str to ndarray
        The mean of all estimates, of the map and of each view.
    examples : mapping of (str, str) to ndarray
        By scheme and quantity: its first estimate at the smallest number of evaluations.
    provenance : mapping
        Fit for JSON.
    """

    rows: Sequence[Row]
    prospects: Sequence[Prospect]
    recommendation: str
    recommended: str
    baseline: str
    error: float
    quantity: str
    rounds: int
    n_evaluations: int
    seconds: float
    left_out: Mapping[str, str]
    truth: Mapping[str, NDArray[np.float64]]
    examples: Mapping[tuple[str, str], NDArray[np.float64]]
    provenance: Mapping[str, Any]

    @property
    def schemes(self) -> tuple[str, ...]:
        """Names, in the order that they were given in."""
        return tuple(dict.fromkeys(row.scheme for row in self.rows))

    @property
    def quantities(self) -> tuple[str, ...]:
        """The whole map, and the views by name."""
        return tuple(dict.fromkeys(row.quantity for row in self.rows))

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Numbers of evaluations, growing."""
        return tuple(sorted({row.evaluations for row in self.rows}))

    def row(self, scheme: str, evaluations: int, quantity: str = MAP) -> Row:
        """Return one row.

        Raises
        ------
        KeyError
            If there is none.
        """
        for row in self.rows:
            if (row.scheme, row.evaluations, row.quantity) == (scheme, evaluations, quantity):
                return row
        raise KeyError(
            f"no row of {scheme!r} at {evaluations} evaluations for {quantity!r}: there are "
            f"{list(self.schemes)}, {list(self.evaluations)} and {list(self.quantities)}"
        )

    def prospect(self, scheme: str, quantity: str = MAP) -> Prospect:
        """Return what a scheme costs for a quantity.

        Raises
        ------
        KeyError
            If there is no such scheme or quantity.
        """
        for prospect in self.prospects:
            if (prospect.scheme, prospect.quantity) == (scheme, quantity):
                return prospect
        raise KeyError(
            f"no {scheme!r} for {quantity!r}: there are {list(self.schemes)} and {list(self.quantities)}"
        )

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, with a head."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures, fit for JSON; what is not finite is None."""
        told = {
            "recommendation": self.recommendation,
            "recommended": self.recommended,
            "baseline": self.baseline,
            "wanted_error": self.error,
            "quantity": self.quantity,
            "rounds": self.rounds,
            "n_evaluations": self.n_evaluations,
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows],
            "prospects": [asdict(prospect) for prospect in self.prospects],
            "left_out": dict(self.left_out),
            "provenance": dict(self.provenance),
        }
        plain: dict[str, Any] = json.loads(json.dumps(told), parse_constant=lambda _: None)
        return plain

    def save_report(self, path: str | os.PathLike[str], title: str = "Sampling schemes compared") -> None:
        """Write the report: one HTML file that needs nothing else, whole or not at all.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        OSError
            If the file cannot be written.
        """
        from mollikit.comparison.report import html_report

        text = html_report(self, title)
        with replacing(path) as file:
            file.write(text.encode())

    def __str__(self) -> str:
        return "\n".join([table(self), "", self.recommendation])

    def _repr_html_(self) -> str:
        from mollikit.comparison.report import html_tables

        return html_tables(self)


def table(comparison: Comparison) -> str:
    """Lay the rows out for a terminal, a block for each quantity."""
    lines = []
    for quantity in comparison.quantities:
        lines.append(quantity if quantity == MAP else f"view {quantity!r}")
        head = ("scheme", "N", "error", "gain (95%)", "coverage", f"N to {comparison.error:.3g}", "seconds")
        body = [
            cells(comparison, row, last=row.evaluations == comparison.evaluations[-1])
            for row in comparison.rows
            if row.quantity == quantity
        ]
        widths = [max(len(line[k]) for line in [head, *body]) for k in range(len(head))]
        for line in [head, *body]:
            words = [line[0].ljust(widths[0])]
            words += [word.rjust(width) for word, width in zip(line[1:], widths[1:], strict=True)]
            lines.append("  " + "  ".join(words).rstrip())
    return "\n".join(lines)


def cells(comparison: Comparison, row: Row, *, last: bool) -> tuple[str, ...]:
    """Return a row as words; what a scheme costs stands in its last row alone."""
    prospect = comparison.prospect(row.scheme, row.quantity)
    gain = f"{row.gain:.2f} ({row.gain_low:.2f}-{row.gain_high:.2f})"
    return (
        row.scheme,
        str(row.evaluations),
        percent(row.error),
        "1" if row.scheme == comparison.baseline else gain,
        f"{row.coverage:.1%}",
        number(prospect.evaluations) if last else "",
        number(prospect.seconds) if last else "",
    )


def percent(error: float) -> str:
    """Return a relative error for people."""
    return f"{error:.3g}" if np.isfinite(error) else "unresolved"


def number(value: float) -> str:
    """Return a quantity for people, in three digits."""
    if not np.isfinite(value):
        return "-"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"
