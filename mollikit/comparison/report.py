"""The report of a comparison: one HTML page that needs nothing else, in light and dark."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

from mollikit.comparison.comparison import Comparison, number
from mollikit.comparison.figures import drawings
from mollikit.comparison.rounds import MAP

_HEADS = (
    "scheme",
    "evaluations",
    "groups",
    "relative error",
    "gain",
    "95% interval",
    "coverage",
    "stated / measured error",
    "slope",
    "ms an evaluation",
    "evaluations to error",
    "seconds to error",
)


def html_report(comparison: Comparison, title: str) -> str:
    """Return the whole page: the recommendation, and of each quantity the figures and a table that sorts."""
    parts = []
    for quantity in comparison.quantities:
        about = "The whole map" if quantity == MAP else f"The view {quantity!r}"
        figures = "".join(
            f'<figure id="{escape(f"{quantity}-{drawn.name}")}" class="{"wide" if drawn.wide else ""}">'
            f"{drawn.svg}<figcaption>{escape(drawn.caption)}</figcaption></figure>"
            for drawn in drawings(comparison, quantity)
        )
        parts.append(
            f'<h2>{escape(about)}</h2><div class="figures">{figures}</div>'
            f'<div class="scroll">{_table(comparison, quantity)}</div>'
        )
    facts = (
        f"{comparison.rounds} rounds of {len(comparison.schemes)} schemes at "
        f"{' and '.join(map(str, comparison.evaluations))} evaluations: "
        f"{comparison.n_evaluations:,} gradients in {number(comparison.seconds)} s; "
        f"{comparison.provenance['dimension']:,} coordinates; kernel {comparison.provenance['kernel']}"
    )
    left_out = "".join(
        f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in comparison.left_out.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="facts">{escape(facts)}</p>
<p class="verdict">{escape(comparison.recommendation)}</p>
{"".join(parts)}
{f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else ""}
<details><summary>How it was measured</summary>
<p>Every scheme makes an estimate in each round; rounds are independent. Half the squared distance of two
rounds estimates the squared error, their inner product the squared norm of the truth, both without bias and
without trust in any error bar. The gain is the ratio of squared errors at equal evaluations, its interval a
jackknife over pairs of rounds. An interval counts as covering where it holds the mean of all other rounds,
whose own error widens it. What a wanted error costs is read between the numbers measured, and follows the
exponent -1/2 beyond them.</p>
<pre>{escape(json.dumps(dict(comparison.provenance), indent=1))}</pre></details>
</main>
<script>{_asset("report.js")}</script>
</body>
</html>
"""


def html_tables(comparison: Comparison) -> str:
    """Return the recommendation and the tables alone, for a notebook."""
    tables = "".join(
        f"<h4>{escape(quantity)}</h4>{_table(comparison, quantity)}" for quantity in comparison.quantities
    )
    return f"<p><b>{escape(comparison.recommendation)}</b></p>{tables}"


def _table(comparison: Comparison, quantity: str) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in _HEADS)
    body = []
    for row in comparison.rows:
        if row.quantity != quantity:
            continue
        cost = comparison.prospect(row.scheme, quantity)
        values = (
            (row.evaluations, str(row.evaluations)),
            (row.groups, str(row.groups)),
            (row.error, f"{row.error:.3g} ± {row.error_spread:.1g}"),
            (row.gain, f"{row.gain:.3g}"),
            (row.gain_low, f"{row.gain_low:.3g} to {row.gain_high:.3g}"),
            (row.coverage, f"{row.coverage:.1%} ± {row.coverage_spread:.1%}"),
            (row.stated, f"{row.stated:.2f}"),
            (cost.slope, f"{cost.slope:.2f} ± {cost.slope_spread:.2f}"),
            (cost.seconds_per_evaluation, f"{1e3 * cost.seconds_per_evaluation:.3g}"),
            (cost.evaluations, number(cost.evaluations)),
            (cost.seconds, number(cost.seconds)),
        )
        cells = "".join(f'<td data-value="{value!r}">{escape(text)}</td>' for value, text in values)
        best = row.scheme == comparison.recommended and quantity == comparison.quantity
        body.append(f'<tr class="{"best" if best else ""}"><td>{escape(row.scheme)}</td>{cells}</tr>')
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _asset(name: str) -> str:
    return files("mollikit.comparison").joinpath(name).read_text(encoding="utf-8")
