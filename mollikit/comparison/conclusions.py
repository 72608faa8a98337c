from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.comparison.comparison import Comparison, Prospect, Row, number
from mollikit.comparison.rounds import Rounds
from mollikit.comparison.statistics import interval, jackknife, slope

# Below this, beyond chance, a scheme's intervals are not to be relied on.
_LEAST_COVERAGE = 0.93


def concluded(
    measured: Rounds,
    names: Sequence[str],
    numbers: Sequence[int],
    *,
    error: float | None,
    quantity: str,
    seconds: float,
    left_out: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> Comparison:
    """Draw rows, costs and a recommendation from what the rounds measured.

    Without a wanted error it is that of the baseline at the largest number of evaluations.
    """
    if error is None:
        error = _row(measured, names, numbers, names[0], numbers[-1], quantity).error
    quantities = [q for (s, n, q) in measured.tracks if (s, n) == (names[0], numbers[0])]
    rows = [_row(measured, names, numbers, s, n, q) for q in quantities for s in names for n in numbers]
    prospects = [_prospect(measured, s, numbers, q, error) for q in quantities for s in names]
    last = numbers[-1]
    comparison = Comparison(
        rows=rows,
        prospects=prospects,
        recommendation="",
        recommended=names[0],
        baseline=names[0],
        error=error,
        quantity=quantity,
        rounds=measured.count,
        n_evaluations=measured.count * sum(measured.spent.values()),
        seconds=seconds,
        left_out=left_out,
        truth={q: measured.truth(q, names, last).reshape(measured.shapes[q]) for q in quantities},
        examples={
            (s, q): _first(measured, s, numbers[0], q).reshape(measured.shapes[q])
            for s in names
            for q in quantities
        },
        provenance=provenance,
    )
    recommended, sentence = _recommendation(comparison)
    return replace(comparison, recommended=recommended, recommendation=sentence)


def _errors(measured: Rounds, scheme: str, n: int, quantity: str) -> NDArray[np.float64]:
    """Squared errors of the pairs, at n evaluations: a scheme that used fewer is charged for those alone."""
    return np.asarray(measured.tracks[scheme, n, quantity].squared_errors) * measured.used[scheme, n] / n


def _first(measured: Rounds, scheme: str, n: int, quantity: str) -> NDArray[np.float64]:
    first = measured.tracks[scheme, n, quantity].first
    assert first is not None
    return first


def _row(
    measured: Rounds, names: Sequence[str], numbers: Sequence[int], scheme: str, n: int, quantity: str
) -> Row:
    own, base = _errors(measured, scheme, n, quantity), _errors(measured, names[0], n, quantity)
    norm = measured.squared_norm(quantity)
    root, spread = jackknife(lambda x: float(np.sqrt(x.mean())), own)
    gain, low, high = _gain(base, own)
    coverage, coverage_spread = measured.coverage((scheme, n, quantity), names, numbers[-1])
    stated = float(np.mean(measured.tracks[scheme, n, quantity].stated)) * measured.used[scheme, n] / n
    relative = norm**-0.5 if norm > 0 else float("inf")
    return Row(
        scheme=scheme,
        quantity=quantity,
        evaluations=n,
        groups=measured.groups[scheme, n],
        error=root * relative,
        error_spread=spread * relative,
        gain=gain,
        gain_low=low,
        gain_high=high,
        coverage=coverage,
        coverage_spread=coverage_spread,
        stated=stated**0.5 / root if root > 0 else float("nan"),
    )


def _gain(base: NDArray[np.float64], own: NDArray[np.float64]) -> tuple[float, float, float]:
    """Ratio of squared errors and its interval; without a spread where there is no error."""
    if not (base.all() and own.all()):
        ratio = 1.0 if not (base.any() or own.any()) else 0.0 if own.any() else float("inf")
        return ratio, ratio, ratio
    logarithm, error = jackknife(
        lambda pairs: float(np.log(pairs[:, 0].mean() / pairs[:, 1].mean())), np.stack([base, own], axis=1)
    )
    return float(np.exp(logarithm)), *interval(logarithm, error, len(own))


def _prospect(
    measured: Rounds, scheme: str, numbers: Sequence[int], quantity: str, wanted: float
) -> Prospect:
    errors = np.stack([_errors(measured, scheme, n, quantity) for n in numbers], axis=1)
    exponent, spread = slope(numbers, errors) if len(numbers) > 1 and (errors > 0).all() else (np.nan, np.nan)
    norm = measured.squared_norm(quantity)
    relative = np.sqrt(errors.mean(axis=0) / norm) if norm > 0 else np.full(len(numbers), np.inf)
    group_size = measured.used[scheme, numbers[0]] / measured.groups[scheme, numbers[0]]
    needed = max(_needed(np.asarray(numbers, np.float64), relative, wanted), 2 * group_size)
    each = min(measured.seconds[scheme])
    return Prospect(scheme, quantity, exponent, spread, each, needed, needed * each)


def _needed(numbers: NDArray[np.float64], errors: NDArray[np.float64], wanted: float) -> float:
    """Evaluations to an error: between two measured ones by their line, elsewhere by the exponent -1/2."""
    for k in range(len(numbers) - 1):
        if errors[k] >= wanted >= errors[k + 1] and errors[k] > errors[k + 1]:
            share = np.log(errors[k] / wanted) / np.log(errors[k] / errors[k + 1])
            return float(numbers[k] * (numbers[k + 1] / numbers[k]) ** share)
    if not (np.isfinite(errors).all() and np.isfinite(wanted)):
        return float("inf")
    if errors[-1] == 0:
        return float(numbers[0])
    from_end = -1 if errors[-1] > wanted else 0
    return float(numbers[from_end] * (errors[from_end] / wanted) ** 2)


def _recommendation(comparison: Comparison) -> tuple[str, str]:
    quantity, last = comparison.quantity, comparison.evaluations[-1]
    about = "the whole map" if quantity == "map" else f"the view {quantity!r}"
    if comparison.row(comparison.baseline, last, quantity).error == 0:
        return comparison.baseline, (
            f"{comparison.baseline} is exact here: the gradient does not move with the noise."
        )
    sound = []
    for scheme in comparison.schemes:
        row = comparison.row(scheme, last, quantity)
        better = scheme == comparison.baseline or row.gain_low > 1
        covered = row.coverage + 2 * row.coverage_spread >= _LEAST_COVERAGE
        if better and covered:
            sound.append(scheme)
    if not np.isfinite(comparison.prospect(comparison.baseline, quantity).evaluations):
        return comparison.baseline, (
            f"The gradient does not stand out from its noise after {comparison.n_evaluations} evaluations, "
            "so no error can be compared: give more evaluations, or a smaller scale."
        )
    best = min(
        sound or [comparison.baseline], key=lambda scheme: comparison.prospect(scheme, quantity).seconds
    )
    cost = comparison.prospect(best, quantity)
    price = (
        f"an error of {comparison.error:.3g} of {about} takes {number(cost.evaluations)} evaluations, "
        f"{number(cost.seconds)} s on this machine"
    )
    if best == comparison.baseline:
        return best, (
            f"Nothing reaches the error sooner than {best} here, beyond chance; {price}: what is needed is "
            "more evaluations, a view, or knowledge of the model."
        )
    row = comparison.row(best, last, quantity)
    return best, (
        f"Take {best}: at {last} evaluations it needs {row.gain:.3g} times fewer than {comparison.baseline} "
        f"(95%: {row.gain_low:.3g} to {row.gain_high:.3g}); {price}."
    )
