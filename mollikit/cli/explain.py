from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit import BiasedEstimate, Combined, Estimate, Interrupted, Kernel, Pathwise, ProgressBar
from mollikit.cli import options, words
from mollikit.cli.command import INTERRUPTED, Command, UsageError, used_on
from mollikit.cli.opening import Opened, anchored
from mollikit.cli.predictions import Predictions
from mollikit.cli.report import lines, record
from mollikit.cli.subjects import Subject, views_of
from mollikit.cli.surrogates import AUDIT, towards_surrogate
from mollikit.cli.writing import undisturbed, whole_folder
from mollikit.layout import Layout
from mollikit.oracles import GradientOracle, ModelFile, Multitarget


@dataclass(frozen=True, eq=False)
class Explanation:
    """One input and target with all that was found out about it; its files are named by ``stem``."""

    stem: str
    subject: Subject
    predictions: Predictions
    oracle: GradientOracle
    raw: Any
    estimate: Estimate | BiasedEstimate
    interrupted: bool


@dataclass(frozen=True)
class Explained:
    """What a run wrote: a record of each input, and whether Ctrl-C ended it."""

    records: Sequence[dict[str, Any]]
    interrupted: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of ``mollikit explain``."""
    parser.description = (
        "Estimate the smoothed gradient of a model's output at each input, with its error. "
        "For each input, DIR receives a .png (of photos), a .npz with the arrays and a .json with all "
        "that is needed to repeat it. DIR is written whole or not at all."
    )
    parser.epilog = (
        "exit codes: 0 done; 1 the model, an input or the folder is at fault; 2 wrong usage, or "
        "options that do not suit them; 130 interrupted (what was computed is written, and marked)"
    )
    options.model_and_output(parser, out=None)
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="an image; a .npy array of the input's shape; or a .npz of arrays by input name",
    )
    parser.add_argument(
        "--top",
        type=options.whole(1),
        metavar="K",
        help="explain the K largest outputs at the same points, each with files of its own: a forward pass "
        "serves all of them",
    )
    smoothing = options.kernel_and_seed(parser).add_argument
    smoothing(
        "--sampler",
        type=options.checked(words.sampler),
        metavar="NAME[:POINTS]",
        help=f"{', '.join(words.SAMPLERS)}, with the points of a group (default: recentred:8; with "
        "--forwards independent)",
    )
    smoothing(
        "--forwards",
        type=options.whole(4),
        metavar="N",
        help="draw the gradients towards a surrogate of N forward passes, each a third of a gradient: on "
        "deep nets far less noise, and a bias; errors are then estimated risks, the bias included "
        f"(--evaluations is the cost of all, by default that of the surrogate and {AUDIT} gradients)",
    )
    stopping = parser.add_argument_group("when to stop, the first of several").add_argument
    stopping("--evaluations", type=options.whole(1), metavar="N", help="gradients to evaluate at most")
    stopping(
        "--relative-error",
        type=options.checked(words.relative_error),
        metavar="R[:VIEW]",
        help="of the whole map, or of the view 'summed' or 'pooled'",
    )
    stopping(
        "--seconds",
        type=options.seconds,
        metavar="S",
        help=f"default: {words.DEFAULT_SECONDS:g}, for each input",
    )
    options.images(parser)
    options.running(parser)


def run(asked: argparse.Namespace) -> int:
    """Explain, and return the exit code."""
    return INTERRUPTED if explain_inputs(asked).interrupted else 0


def explain_inputs(asked: argparse.Namespace) -> Explained:
    """Explain every input and write the output folder, whole or not at all.

    Parameters
    ----------
    asked : argparse.Namespace
        What the parser made of a command line.

    Raises
    ------
    ValueError, TypeError, OSError, ImportError
        If something does not fit: before the first gradient is evaluated.
    KeyboardInterrupt
        On Ctrl-C before there was anything to write.
    """
    if asked.top is not None and (asked.target != "top" or asked.forwards is not None):
        raise UsageError("--top chooses the targets of smoothed gradients: leave --target and --forwards out")
    talk = sys.stderr if asked.json else sys.stdout
    if asked.seed is None:
        asked.seed = secrets.randbits(32)
    with whole_folder(asked.out, replace=asked.force) as folder:
        opened = Opened.of(asked, asked.inputs)
        model, subjects = opened.model, opened.subjects
        kernel = words.kernel(asked.kernel)(words.scale(asked.scale))
        default = "recentred:8" if asked.forwards is None else "independent"
        asked.sampler = asked.sampler or default
        pathwise = Pathwise(inputs=kernel, sampler=words.sampler(asked.sampler), block=asked.block)
        estimator: Pathwise | Combined = pathwise
        if asked.forwards is not None:
            estimator, asked.evaluations = towards_surrogate(asked, pathwise)
        for subject in subjects:
            _check(subject, kernel, estimator, asked)
        wanted = [_wanted(opened, subject, asked.top) for subject in subjects]
        records: list[dict[str, Any]] = []
        interrupted = False
        for subject, predictions in zip(subjects, wanted, strict=True):
            try:
                found, interrupted = _explained(model, subject, predictions, estimator, asked)
            except KeyboardInterrupt:
                if not records:
                    raise
                interrupted = True
                break
            with undisturbed():
                records += [_write(folder, done, asked) for done in found]
            if interrupted:
                break
    if not asked.quiet:
        for told in records:
            print(*lines(told, asked.out), sep="\n", file=talk)
    if interrupted:
        print(
            f"mollikit: interrupted; {asked.out} holds {len(records)} of {sum(map(len, wanted))} "
            + ("inputs" if asked.top is None else "explanations")
            + (f", {partly} in part" if (partly := sum(told["interrupted"] for told in records)) else ""),
            file=sys.stderr,
        )
    if asked.json:
        result = {"out": str(asked.out), "interrupted": interrupted, "inputs": records}
        print(json.dumps(result, allow_nan=False))
    return Explained(records, interrupted)


def _check(
    subject: Subject, kernel: Kernel, estimator: Pathwise | Combined, asked: argparse.Namespace
) -> None:
    """Refuse what would be refused later, while nothing has been computed for any input."""
    points = subject.points
    sampler = estimator.sampler if isinstance(estimator, Pathwise) else estimator.pathwise.sampler
    with used_on(subject.path):
        arrays = points.values() if isinstance(points, Mapping) else [points]
        try:
            moving = sum(int((kernel.widths(values) > 0).sum()) for values in arrays)
        except ValueError as error:
            raise ValueError(f"--scale {asked.scale}: {error}") from error
        sampler.check(moving)
        group_size = sampler.group_size(moving)
        views = views_of(subject, asked.view_pool)
        if isinstance(estimator, Pathwise):
            words.budget(asked).check(group_size, views, sampler.fewest_groups)
        else:
            estimator.check(words.budget(asked), points)
        if asked.block is not None and asked.block < group_size:
            raise ValueError(f"--block {asked.block} holds less than one group of {group_size} points")


def _wanted(opened: Opened, subject: Subject, top: int | None) -> list[Predictions]:
    """What the model says of an input, with each target that is to be explained."""
    predicted = opened.predicted(subject)
    if top is None:
        return [predicted]
    with used_on(subject.path):
        if not isinstance(opened.model, Multitarget):
            raise ValueError(f"--top needs values_and_gradients, which {type(opened.model).__name__} lacks")
        return predicted.largest(top)


def _explained(
    model: ModelFile,
    subject: Subject,
    wanted: Sequence[Predictions],
    estimator: Pathwise | Combined,
    asked: argparse.Namespace,
) -> tuple[list[Explanation], bool]:
    """Explain what is wanted of one input, one target or several; say whether Ctrl-C ended it.

    Of several targets it may have come when all were finished, or before all had something to keep.
    """
    stem, several = subject.path.stem, asked.top is not None
    oracle: Any = model if several else anchored(model, subject)
    targets = [predictions.target for predictions in wanted]
    bar = None if asked.quiet else ProgressBar(stem)
    arguments: dict[str, Any] = {
        "held": subject.held,
        "views": views_of(subject, asked.view_pool),
        "budget": words.budget(asked),
        "rng": asked.seed,
        "progress": bar,
    }
    interrupted = False
    estimates: list[Any]
    try:
        if several:
            assert isinstance(estimator, Pathwise)
            _, answers = oracle.values_and_gradients(subject.batch, targets, **subject.held_batch)
            estimates = estimator.estimate_targets(oracle, subject.points, targets, **arguments)
        else:
            answers = [oracle.value_and_gradient(subject.batch, **subject.held_batch)[1]]
            estimates = [estimator.estimate(oracle, subject.points, **arguments)]
    except Interrupted as interrupt:
        estimates, interrupted = [*interrupt.completed, *interrupt.under_way], True
        if not estimates:
            raise
        if several:
            by_target = {_target(estimate): estimate for estimate in estimates}
            kept = [k for k, target in enumerate(targets) if target in by_target]
            wanted, answers = [wanted[k] for k in kept], [answers[k] for k in kept]
            estimates = [by_target[targets[k]] for k in kept]
    finally:
        if bar is not None:
            bar.close()
    layout, found = Layout.of(subject.points), []
    for predictions, answer, estimate in zip(wanted, answers, estimates, strict=True):
        raw = layout.unflatten(layout.gradients(answer, 1)[0])
        own = "-".join([stem, *map(str, predictions.target)]) if several else stem
        partly = interrupted and not (several and estimate.stopped != "interrupted")
        found.append(Explanation(own, subject, predictions, oracle, raw, estimate, partly))
    return found, interrupted


def _target(estimate: Estimate) -> tuple[int, ...]:
    return tuple(np.atleast_1d(estimate.provenance["target"]).tolist())


def _write(folder: Path, done: Explanation, asked: argparse.Namespace) -> dict[str, Any]:
    """Write one input's files into the folder and return its record."""
    subject, estimate, stem = done.subject, done.estimate, done.stem
    files = [f"{stem}.npz", f"{stem}.json"]
    np.savez(folder / f"{stem}.npz", **_arrays(done))
    if subject.photo is not None:
        files.insert(0, f"{stem}.png")
        _draw(folder / f"{stem}.png", done)
    told = record(
        asked, subject, done.oracle, done.predictions, estimate, interrupted=done.interrupted, files=files
    )
    (folder / f"{stem}.json").write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return told


def _draw(path: Path, done: Explanation) -> None:
    from mollikit.pictures import biased_panel, panel

    estimate, subject = done.estimate, done.subject
    assert subject.photo is not None
    title = f"{subject.path.stem}: gradient of {done.predictions.target_label}, "
    end = " (interrupted)" if done.interrupted else ""
    if isinstance(estimate, BiasedEstimate):
        title += f"the cost of {estimate.n_evaluations:.4g} gradients{end}"
        views = estimate.views["summed"], estimate.views["pooled"]
        biased_panel(path, subject.photo, done.raw, *views, title=title, biased=estimate.biased)
    else:
        title += f"{estimate.n_evaluations} evaluations{end}"
        panel(path, subject.photo, done.raw, estimate.views["summed"], estimate.views["pooled"], title=title)


def _arrays(done: Explanation) -> dict[str, Any]:
    estimate = done.estimate
    arrays: dict[str, NDArray[Any]] = {}
    forms = {"gradient": estimate.gradient, "raw_gradient": done.raw}
    if isinstance(estimate, Estimate):
        forms["standard_error"] = estimate.standard_error
    for name, form in forms.items():
        leaves = {f"{name}.{key}": v for key, v in form.items()} if isinstance(form, dict) else {name: form}
        arrays |= leaves
    arrays |= {f"view.{name}": view.value for name, view in estimate.views.items()}
    if isinstance(estimate, Estimate):
        arrays |= {
            f"view.{name}.standard_error": view.standard_error for name, view in estimate.views.items()
        }
    return arrays


COMMAND = Command(
    "explain", "the smoothed gradient of a model at photos or arrays, with its error", add_arguments, run
)
