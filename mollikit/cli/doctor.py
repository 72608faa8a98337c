"""``mollikit doctor``: can this model's gradients be smoothed, and what do they cost?"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from mollikit.cli import options
from mollikit.cli.command import Command
from mollikit.cli.description import Description
from mollikit.cli.models import fingerprint
from mollikit.cli.opening import Opened, anchored, opened
from mollikit.cli.subjects import Shapes, Subject
from mollikit.cli.writing import TOOL
from mollikit.health import Health, Verdict, examine

_MARKS = {Verdict.GOOD: "good", Verdict.REMARK: "note", Verdict.FAULT: "FAULT"}
_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of ``mollikit doctor``."""
    parser.description = (
        "Examine a model at an input: is it deterministic, do rows of a batch influence each other, does the "
        "gradient agree with differences of the value, is it flat, in which dtype does it compute, what "
        "does a gradient cost, and which batch is best. Nothing is written."
    )
    parser.epilog = (
        "exit codes: 0 healthy, perhaps with notes; 1 a fault to be mended, or the model or the input cannot "
        "be used; 2 wrong usage, or options that do not suit them; 130 interrupted"
    )
    options.model(parser)
    parser.add_argument(
        "input",
        type=Path,
        nargs="?",
        metavar="INPUT",
        help="an image, a .npy array, or a .npz of arrays by input name (default: noise, which no model was "
        "made for)",
    )
    parser.add_argument(
        "--seconds",
        type=options.seconds,
        default=10.0,
        metavar="S",
        help="for the timings, about (default: 10)",
    )
    options.images(parser)
    options.running(parser)


def run(asked: argparse.Namespace) -> int:
    """Examine the model and tell what was found; return the exit code."""
    if asked.input is None:
        description = Description.beside(asked.model)
        model = opened(asked, description.target(asked.target))
        subject = _noise(model.input_shapes)
        label = None
    else:
        whole = Opened.of(asked, [asked.input])
        (subject,), model = whole.subjects, whole.model
        label = whole.predicted(subject).target_label
    health = examine(anchored(model, subject), subject.points, held=subject.held, seconds=asked.seconds)
    if asked.json:
        print(json.dumps(_record(asked, health, label), allow_nan=False))
    elif not asked.quiet:
        print(_told(asked, health, label))
    return 0 if health.healthy else 1


def _noise(shapes: Shapes) -> Subject:
    """Return a standard normal input.

    Raises
    ------
    ValueError
        The model leaves a size open, or says nothing of its inputs.
    """
    if not shapes or any(size is None for shape in shapes.values() for size in shape):
        raise ValueError(f"the model leaves sizes of its inputs open ({dict(shapes)}): give an INPUT")
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        name: rng.standard_normal(shape, dtype=np.float32)  # type: ignore[arg-type]
        for name, shape in shapes.items()
    }
    points = arrays if len(arrays) > 1 else next(iter(arrays.values()))
    return Subject(Path("noise"), "", points)


def _told(asked: argparse.Namespace, health: Health, label: str | None) -> str:
    where = "noise: give an input for a verdict that counts" if asked.input is None else str(asked.input)
    lines = [f"{asked.model} at {where}" + ("" if label is None else f", gradient of {label}")]
    for finding in health.findings:
        head = f"  {_MARKS[finding.verdict]:5}  {finding.check + ':':15} "
        margin = " " * len(head)
        lines += textwrap.wrap(finding.message, _WIDTH, initial_indent=head, subsequent_indent=margin)
        arrow = margin[3:] + "-> "
        lines += textwrap.wrap(finding.mend, _WIDTH, initial_indent=arrow, subsequent_indent=margin)
    faults = sum(finding.verdict is Verdict.FAULT for finding in health.findings)
    lines.append("healthy" if not faults else f"{faults} {'fault' if faults == 1 else 'faults'} to be mended")
    return "\n".join(lines)


def _record(asked: argparse.Namespace, health: Health, label: str | None) -> dict[str, Any]:
    return {
        "tool": f"{TOOL} {asked.command}",
        "model": {"path": str(asked.model), "sha256": fingerprint(asked.model)},
        "input": None if asked.input is None else str(asked.input),
        "target": label,
        "healthy": health.healthy,
        "findings": [finding.to_dict() for finding in health.findings],
    }


COMMAND = Command(
    name="doctor",
    help="is a model fit for smoothing, and what does a gradient cost",
    add_arguments=add_arguments,
    run=run,
)
