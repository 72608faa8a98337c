"""Each check looks at one thing, and says what it found and what to do."""

from __future__ import annotations

import numpy as np

from mollikit.health.findings import Finding, Verdict
from mollikit.health.patient import Patient
from mollikit.oracles import ValueOracle
from mollikit.testing.differences import Differences, central_differences
from mollikit.testing.tolerances import rounding, row_differences

# Beyond this share of the slopes, differences leave open whether a gradient is right.
_UNCERTAIN = 0.1
# By more than this a gradient is not that of the value.
_WRONG = 0.01
# By which the usual step is divided, one after the other.
_SHORTER_STEPS = (1.0, 8.0, 64.0, 512.0, 4096.0)
# A step of the size of the input that changes the value by less than this share of it: a flat place.
_FLAT = 1e-4


def finite(patient: Patient) -> Finding:
    """NaN and infinities."""
    rows = np.flatnonzero(~np.isfinite(patient.gradients).all(axis=1))
    wrong_values = () if patient.values is None else np.flatnonzero(~np.isfinite(patient.values))
    figures = {"rows": len(patient.rows), "gradients": len(rows), "values": len(wrong_values)}
    if not len(rows) and not len(wrong_values):
        return Finding("finite", Verdict.GOOD, "values and gradients are finite", figures=figures)
    what = "gradient" if len(rows) else "value"
    where = "at the input itself" if 0 in (*rows, *wrong_values) else "at points near the input"
    return Finding(
        "finite",
        Verdict.FAULT,
        f"the {what} is NaN or infinite {where} ({max(len(rows), len(wrong_values))} of {len(patient.rows)})",
        "look for a root or logarithm of zero, a division by zero, or an overflow of half precision; check "
        "that the input has the range that the model was trained on",
        figures,
    )


def deterministic(patient: Patient) -> Finding:
    """Whether equal calls have equal answers."""
    everything = slice(None)
    answers = [patient.gradients, *(patient.ask(everything)[1] for _ in range(2))]
    if all(np.array_equal(answers[0], answer) for answer in answers[1:]):
        return Finding("deterministic", Verdict.GOOD, "three equal calls gave the same bits")
    scale = np.abs(answers[0]).max()
    largest = float(max(np.abs(a - answers[0]).max() for a in answers[1:]) / scale) if scale else np.inf
    figures = {"relative_difference": largest}
    if largest <= rounding(patient.precision):
        return Finding(
            "deterministic",
            Verdict.REMARK,
            f"equal calls differ by rounding ({largest:.1g} of the gradient)",
            "estimates are right, but a seed does not repeat their last bits: ask the framework for "
            "deterministic kernels",
            figures,
        )
    return Finding(
        "deterministic",
        Verdict.FAULT,
        f"equal calls differ by {largest:.1g} of the gradient: the model is random",
        "put it in evaluation mode (dropout off), or fix its random numbers",
        figures,
    )


def independent_rows(patient: Patient) -> Finding:
    """Whether rows of a batch influence each other."""
    together = patient.gradients
    alone = np.concatenate([patient.ask(slice(k, k + 1))[1] for k in range(len(together))])
    reversed_rows = patient.ask(slice(None, None, -1))[1][::-1]
    worst = 0.0
    for other in (alone, reversed_rows):
        difference, allowed = row_differences(other, together, patient.precision)
        worst = max(worst, float(np.max(difference / np.where(allowed > 0, allowed, 1e-300))))
    figures = {"times_rounding": worst}
    if worst <= 1:
        return Finding(
            "rows", Verdict.GOOD, "a row's gradient is the same alone and in a batch", figures=figures
        )
    # A kink of the model may lie between two roundings: real coupling is far beyond it.
    if worst <= 100:
        return Finding(
            "rows",
            Verdict.REMARK,
            f"a row's gradient in a batch differs from that alone by {worst:.2g} times rounding",
            "the framework computes differently for each batch size: estimates are right, and depend on "
            "block= in their last digits",
            figures,
        )
    return Finding(
        "rows",
        Verdict.FAULT,
        "rows of a batch influence each other: a row's gradient in a batch is another than alone",
        "put BatchNorm in evaluation mode (model.eval(), training=False); let the target reduce over the "
        "axes behind the first only",
        figures,
    )


def right(patient: Patient) -> Finding:
    """Whether the gradient is that of the value."""
    if patient.values is None and not isinstance(patient.oracle, ValueOracle):
        return Finding(
            "gradient",
            Verdict.REMARK,
            "the oracle gives no values, so its gradient cannot be checked by differences",
            "let value_and_gradient return the values, or add value(points)",
        )
    points = patient.layout.points(patient.rows)
    gradients = patient.layout.unflatten(patient.gradients)
    tried: list[Differences] = []
    # A step on which the function bends shows a difference too: one that goes away on a shorter step.
    for shorter in _SHORTER_STEPS:
        tried.append(
            central_differences(
                patient.value, gradients, points, patient.precision, directions=2, shorter=shorter
            )
        )
        if tried[-1].uncertainty <= _UNCERTAIN and tried[-1].excess <= _WRONG:
            break
    decisive = [found for found in tried if found.uncertainty <= _UNCERTAIN]
    best = min(decisive or tried, key=lambda found: (found.excess, found.uncertainty))
    figures = {"excess": best.excess, "uncertainty": min(best.uncertainty, 1e300)}
    if not decisive:
        return Finding(
            "gradient",
            Verdict.REMARK,
            f"differences tell the gradient to {best.uncertainty:.0%} only: the model is rough or flat on "
            f"the scale of rounding in {patient.precision}",
            "run it in a wider dtype for a verdict",
            figures,
        )
    if best.excess > _WRONG:
        return Finding(
            "gradient",
            Verdict.FAULT,
            f"the gradient disagrees with differences of the value by {best.excess:.0%}",
            "look for detach, stop_gradient, rounding or a gradient of its own in the model; a model that "
            "jumps needs an estimator from values, Secant or ScoreFunction",
            figures,
        )
    return Finding(
        "gradient",
        Verdict.GOOD,
        f"the gradient agrees with differences of the value (to {best.uncertainty:.1g})",
        figures=figures,
    )


def saturated(patient: Patient) -> Finding:
    """Whether the model is flat at the input."""
    clean, size = patient.gradients[0], float(np.linalg.norm(patient.rows[0].astype(np.float64)))
    zeros = float((clean == 0).mean())
    flat_rows = int((patient.gradients == 0).all(axis=1).sum())
    figures = {"zero_share": zeros, "rows_of_zeros": flat_rows}
    if flat_rows == len(patient.gradients):
        return Finding(
            "saturation",
            Verdict.FAULT,
            "the gradient is exactly zero everywhere, at the input and around it",
            "explain the logit, not a saturated probability; check that the target is the one meant, that "
            "units are not dead, and that the input has the range that the model expects",
            figures,
        )
    slope = float(np.linalg.norm(clean.astype(np.float64))) * max(size, 1.0)
    value = None if patient.values is None else float(np.abs(patient.values[0]))
    if zeros == 1 or (value is not None and slope < _FLAT * value):
        return Finding(
            "saturation",
            Verdict.REMARK,
            "the model is flat at the input: its gradient is next to nothing beside its value",
            "explain the logit, not a saturated probability; smoothing sees what lies around, and needs more "
            "evaluations for it",
            figures | {"relative_slope": 0.0 if value is None else slope / value},
        )
    told = f"; {zeros:.0%} of its coordinates are exactly zero" if zeros > 0 else ""
    message = f"the gradient at the input is not zero{told}"
    return Finding("saturation", Verdict.GOOD, message, figures=figures)


def precision(patient: Patient) -> Finding:
    """In which dtype the model computes."""
    given, answered = patient.layout.dtype, patient.precision
    figures = {"points": str(given), "answers": [str(dtype) for dtype in patient.dtypes]}
    if answered.itemsize < 4:
        return Finding(
            "dtype",
            Verdict.REMARK,
            f"the model computes in {answered}, with {-np.log10(np.finfo(answered).eps):.0f} digits",
            "small gradients underflow and sums lose digits: run it in float32 for maps that are compared",
            figures,
        )
    return Finding("dtype", Verdict.GOOD, f"the model computes in {answered}", figures=figures)
