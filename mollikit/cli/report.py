from __future__ import annotations

import argparse
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mollikit import BiasedEstimate, Estimate, RelativeError
from mollikit._version import __version__
from mollikit.cli.models import Described, fingerprint
from mollikit.cli.predictions import Predictions
from mollikit.cli.subjects import Subject
from mollikit.cli.writing import TOOL
from mollikit.oracles import GradientOracle
from mollikit.surrogates.risk import StatedRisk

# The error that a forecast is made for.
_WANTED = 0.1


def record(
    asked: argparse.Namespace,
    subject: Subject,
    oracle: GradientOracle,
    predictions: Predictions,
    estimate: Estimate | BiasedEstimate,
    *,
    interrupted: bool,
    files: Sequence[str],
) -> dict[str, Any]:
    """Tell all that was found out about one input, and all that is needed to repeat it, fit for JSON."""
    again = repeating(asked, subject, predictions, estimate)
    return {
        "tool": f"{TOOL} {asked.command}",
        "files": list(files),
        "model": {"path": str(asked.model), "sha256": fingerprint(asked.model)},
        "input": {"path": str(subject.path), "sha256": subject.sha256},
        "predictions": predictions.top(),
        "target": {"index": list(predictions.target), "label": predictions.target_label},
        "n_evaluations": estimate.n_evaluations,
        "relative_error": {
            "map": _finite(estimate.relative_error),
            **{name: _finite(view.relative_error) for name, view in estimate.views.items()},
        },
        "seconds": estimate.seconds,
        "partial": estimate.partial,
        **(_of_biased(estimate) if isinstance(estimate, BiasedEstimate) else _of_unbiased(estimate)),
        "interrupted": interrupted,
        "arguments": {
            name: [str(part) for part in value]
            if name == "inputs"
            else str(value)
            if isinstance(value, Path)
            else value
            for name, value in vars(asked).items()
        },
        "preprocessing": None if subject.preprocessing is None else asdict(subject.preprocessing),
        "repeat": {"arguments": again, "command": shlex.join(["mollikit", *again])},
        "provenance": dict(estimate.provenance),
        "oracle": oracle.describe() if isinstance(oracle, Described) else None,
        "versions": {
            "mollikit": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.platform(),
        },
    }


def repeating(
    asked: argparse.Namespace, subject: Subject, predictions: Predictions, estimate: Estimate | BiasedEstimate
) -> list[str]:
    """Return the arguments that give the same bits again, from the same folder, with nothing left open."""
    words = ["explain", str(asked.model), str(subject.path)]
    words += ["--target", ",".join(map(str, predictions.target)) or "top"]
    words += ["--kernel", asked.kernel, "--scale", asked.scale, "--sampler", asked.sampler]
    if isinstance(estimate, BiasedEstimate):
        budget, block = asked.evaluations, _block(estimate)
        words += ["--forwards", str(asked.forwards)]
    else:
        budget, block = estimate.n_evaluations, estimate.block
    words += ["--evaluations", str(budget), "--seed", str(asked.seed), "--block", str(block)]
    if subject.preprocessing is not None:
        words += subject.preprocessing.as_options()
        if asked.view_pool is not None:
            words += ["--view-pool", str(asked.view_pool)]
    elif asked.size is not None:
        words += ["--size", *map(str, asked.size)]
    if asked.provider:
        words += ["--provider", *asked.provider]
    return [*words, "--out", f"{subject.path.stem}-again"]


def lines(told: dict[str, Any], out: Path) -> list[str]:
    """Tell a record to a person."""
    errors = told["relative_error"]
    said = [f"{told['input']['path']}"]
    if top := told["predictions"][:3]:
        seen = ", ".join(f"{p['name'] or p['index']} {p['probability']:.1%}" for p in top)
        said.append(f"  the model sees   {seen}")
    said.append(f"  explained        {told['target']['label']}")
    said.append(
        f"  evaluations      {told['n_evaluations']:.6g} in {told['seconds']:.1f} s, {_stopped(told)}"
    )
    if told["biased"] is not None:
        said.append(f"  biased           {told['biased']}")
    said.append(f"  relative error   {_error(told, 'map')} of the whole map")
    if "pooled" in errors:
        said[-1] += f", {_error(told, 'pooled')} of the view in the picture (channels summed, pooled)"
    if told["biased"] is not None:
        said.append("                   by estimated risk, the bias included; intervals of 95% in brackets")
    if "pooled" in errors:
        if errors["pooled"] is None or errors["pooled"] > 0.5:
            counted = told["biased"] is not None or told["stopped"].startswith("Evaluations")
            more = "--evaluations" if counted else "--seconds"
            said.append(f"                   too rough to read details from: more {more} would help")
    else:
        said.append("  picture          none: only photos have one")
    if (ahead := told["forecast"]) is not None:
        of = "the view" if ahead["view"] else "the map"
        said.append(
            f"  {ahead['relative_error']:.0%} of {of:8}  about {ahead['evaluations']:,.0f} evaluations "
            f"({ahead['low']:,.0f} to {ahead['high']:,.0f}), {ahead['seconds']:,.0f} s at this rate"
        )
    said.append(f"  written          {', '.join(str(out / name) for name in told['files'])}")
    return said


def _of_unbiased(estimate: Estimate) -> dict[str, Any]:
    return {
        "biased": None,
        "n_groups": estimate.n_groups,
        "block": estimate.block,
        "forecast": _forecast(estimate),
        "stopped": estimate.stopped,
    }


def _of_biased(estimate: BiasedEstimate) -> dict[str, Any]:
    stated: dict[str, StatedRisk] = {"map": estimate, **estimate.views}
    return {
        "biased": estimate.biased,
        "n_gradients": estimate.n_gradients,
        "n_folds": estimate.n_folds,
        "block": _block(estimate),
        "relative_interval": {
            name: [_finite(end) for end in part.relative_interval()] for name, part in stated.items()
        },
        "risk": {
            name: {
                "risk": part.risk,
                "standard_error": _finite(part.risk_standard_error),
                "degrees_of_freedom": part.risk_degrees_of_freedom,
                "signal": part.signal,
            }
            for name, part in stated.items()
        },
        "forecast": None,
        "stopped": "interrupted" if estimate.partial else estimate.provenance["budget"],
    }


def _block(estimate: BiasedEstimate) -> int:
    return int(estimate.provenance["unbiased"]["block"])


def _forecast(estimate: Estimate) -> dict[str, Any] | None:
    """What an error of 10% takes, of the view in the picture or else of the map; None if it is reached."""
    view = "pooled" if "pooled" in estimate.views else None
    wanted = RelativeError(_WANTED, view)
    if not _WANTED < estimate.tally.named(view).relative_error < np.inf:
        return None
    ahead = estimate.forecast(wanted)
    return {
        "relative_error": _WANTED,
        "view": view,
        "evaluations": round(ahead.evaluations),
        "low": round(ahead.low),
        "high": _finite(ahead.high),
        "seconds": ahead.seconds,
    }


def _stopped(told: dict[str, Any]) -> str:
    return "interrupted" if told["interrupted"] else f"stopped by {told['stopped']}"


def _finite(error: float) -> float | None:
    """JSON has no infinity: None stands for an error that is not resolved."""
    return float(error) if np.isfinite(error) else None


def _error(told: dict[str, Any], name: str) -> str:
    """An error of a record, with its interval where it is an estimated risk."""
    error = _percent(told["relative_error"][name])
    if told["biased"] is None or told["relative_error"][name] is None:
        return error
    low, high = ("?" if end is None else f"{100 * end:.3g}" for end in told["relative_interval"][name])
    return f"{error} [{low} to {high}%]"


def _percent(error: float | None) -> str:
    if error is None:
        return "not resolved"
    return f"{error:.1%}" if error >= 0.01 else f"{100 * error:.2g}%"
