"""``mollikit compare``: sampling schemes side by side on a model and an input of one's own."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mollikit import Kernel, ProgressBar
from mollikit.cli import options, words
from mollikit.cli.command import INTERRUPTED, Command, UsageError, used_on
from mollikit.cli.models import fingerprint
from mollikit.cli.opening import Opened, anchored
from mollikit.cli.subjects import views_of
from mollikit.cli.writing import TOOL, undisturbed, whole_folder
from mollikit.comparison import Comparison, ComparisonInterrupted, Scheme, compare
from mollikit.comparison.planned import Planned

_FILES = ("report.html", "comparison.csv", "comparison.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of ``mollikit compare``."""
    parser.description = (
        "Compare sampling schemes at equal evaluations on one model and one input: error, gain over the "
        "first scheme, coverage of the intervals, seconds to a wanted error, and a recommendation. DIR "
        f"receives {', '.join(_FILES)}; it is written whole or not at all."
    )
    parser.epilog = (
        "exit codes: 0 done; 1 the model, the input or the folder is at fault; 2 wrong usage, or "
        "options that do not suit them; 130 interrupted (what was measured is written, and marked)"
    )
    options.model_and_output(parser, out=Path("comparison"))
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="an image, a .npy array, or a .npz of arrays by input name"
    )
    smoothing = options.kernel_and_seed(parser).add_argument
    smoothing(
        "--schemes",
        type=options.checked(_schemes),
        metavar="NAME[:NUMBER],...",
        help=f"the first is the baseline; of {', '.join(words.SAMPLERS)}, with the points of a group, and of "
        f"{', '.join(f'{name}[:{what}]' for name, (what, *_) in words.LEARNING.items())}, which learn from a "
        "pilot (default: all samplers that suit the input)",
    )
    measuring = parser.add_argument_group("how much to measure").add_argument
    measuring(
        "--evaluations",
        type=options.checked(_numbers),
        default="64,256",
        metavar="N,...",
        help="at which the schemes are compared (default: 64,256)",
    )
    measuring("--rounds", type=options.whole(4), default=64, metavar="R", help="at most (default: 64)")
    measuring(
        "--seconds",
        type=options.seconds,
        default=60.0,
        metavar="S",
        help="begin no round that would end later; four are made at least (default: 60)",
    )
    measuring(
        "--relative-error",
        type=options.positive,
        metavar="E",
        help="the wanted error, for what it costs (default: what the baseline reaches)",
    )
    measuring(
        "--view",
        choices=["summed", "pooled"],
        help="of a photo: what the recommendation is about (default: the whole map)",
    )
    options.images(parser)
    options.running(parser)


def run(asked: argparse.Namespace) -> int:
    """Compare, write the folder and tell the table; return the exit code."""
    talk = sys.stderr if asked.json else sys.stdout
    if find_spec("matplotlib") is None:
        raise ImportError("the report is drawn with matplotlib: pip install 'mollikit[viz]'")
    asked.seed = secrets.randbits(32) if asked.seed is None else asked.seed
    interrupted = False
    with whole_folder(asked.out, replace=asked.force) as folder:
        opened = Opened.of(asked, [asked.input])
        (subject,) = opened.subjects
        kernel = words.kernel(asked.kernel)(words.scale(asked.scale))
        schemes = None
        if asked.schemes is not None:
            schemes = {name: make(kernel) for name, make in _schemes(asked.schemes).items()}
        views = views_of(subject, asked.view_pool)
        choices: dict[str, Any] = {
            "kernel": kernel,
            "schemes": schemes,
            "evaluations": _numbers(asked.evaluations),
            "rounds": asked.rounds - asked.rounds % 2,
            "seconds": asked.seconds,
            "error": asked.relative_error,
            "view": asked.view,
            "views": views,
            "block": asked.block,
        }
        if asked.view is not None and not views:
            raise UsageError(f"{str(asked.input)!r}: --view {asked.view} is for images, and this is an array")
        with used_on(subject.path):
            Planned.of(subject.points, **choices)
        predicted = opened.predicted(subject)
        bar = None if asked.quiet else ProgressBar(subject.path.stem)
        try:
            comparison = compare(
                anchored(opened.model, subject),
                subject.points,
                **choices,
                held=subject.held,
                rng=asked.seed,
                progress=bar,
            )
        except ComparisonInterrupted as interrupt:
            if interrupt.partial is None:
                raise
            comparison, interrupted = interrupt.partial, True
        finally:
            if bar is not None:
                bar.close()
        told = _record(asked, comparison, subject.sha256, predicted.target_label, interrupted=interrupted)
        title = f"{subject.path.name}: gradient of {predicted.target_label}"
        title += " (interrupted)" if interrupted else ""
        record = json.dumps(told, indent=1, allow_nan=False) + "\n"
        with undisturbed():
            comparison.save_report(folder / _FILES[0], title)
            (folder / _FILES[1]).write_text(comparison.to_csv(), encoding="utf-8")
            (folder / _FILES[2]).write_text(record, encoding="utf-8")
    if not asked.quiet:
        print(comparison, file=talk)
        print(f"written: {', '.join(str(asked.out / name) for name in _FILES)}", file=talk)
    if interrupted:
        print(
            f"mollikit: interrupted; {asked.out} holds what {comparison.rounds} rounds measured",
            file=sys.stderr,
        )
    if asked.json:
        print(json.dumps(told, allow_nan=False))
    return INTERRUPTED if interrupted else 0


def _record(
    asked: argparse.Namespace, comparison: Comparison, sha256: str, target: str, *, interrupted: bool
) -> dict[str, Any]:
    return {
        "tool": f"{TOOL} {asked.command}",
        "files": list(_FILES),
        "model": {"path": str(asked.model), "sha256": fingerprint(asked.model)},
        "input": {"path": str(asked.input), "sha256": sha256},
        "target": target,
        "interrupted": interrupted,
        **comparison.to_json(),
    }


def _schemes(text: str) -> dict[str, Callable[[Kernel], Scheme]]:
    names = [word.strip() for word in text.split(",")]
    schemes = {name: words.scheme(name) for name in names}
    if len(schemes) < 2:
        raise ValueError(f"{text!r} names nothing to compare: give two schemes or more, joined by commas")
    return schemes


def _numbers(text: str) -> tuple[int, ...]:
    read: Callable[[str], int] = options.whole(16)
    try:
        return tuple(read(word.strip()) for word in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from None


COMMAND = Command("compare", "sampling schemes side by side on a model and an input", add_arguments, run)
