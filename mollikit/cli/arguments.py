"""What the command line takes, and the objects that its words stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial, reduce
from operator import or_
from pathlib import Path

from mollikit import (
    Antithetic,
    Budget,
    Bump,
    Cauchy,
    Epanechnikov,
    Evaluations,
    Gaussian,
    HyperbolicSecant,
    Independent,
    Kernel,
    Laplace,
    LatinHypercube,
    Logistic,
    OfRange,
    Recentred,
    RelativeError,
    Sampler,
    Scale,
    Seconds,
    Sobol,
    StudentT,
    Triangular,
    Uniform,
    Width,
    WithinBounds,
    __version__,
)
from mollikit.cli import kernels

KERNELS: dict[str, Callable[[Scale], Kernel]] = {
    "gaussian": Gaussian,
    "bump": Bump,
    "cauchy": Cauchy,
    "epanechnikov": Epanechnikov,
    "hyperbolic-secant": HyperbolicSecant,
    "laplace": Laplace,
    "logistic": Logistic,
    "student-t": StudentT,
    "triangular": Triangular,
    "uniform": Uniform,
}
_FIXED_SAMPLERS: dict[str, Callable[[], Sampler]] = {"independent": Independent, "antithetic": Antithetic}
_GROUPED_SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "recentred": Recentred,
    "latin-hypercube": LatinHypercube,
    "sobol": Sobol,
}
DEFAULT_SECONDS = 10.0


def kernel(text: str) -> Callable[[Scale], Kernel]:
    """Read the name of a kernel; ``student-t:NU`` gives the degrees of freedom too.

    Raises
    ------
    ValueError
        If there is no such kernel.
    """
    name, colon, nu = text.partition(":")
    if not colon and name in KERNELS:
        return KERNELS[name]
    degrees = _numbers(nu)
    if name == "student-t" and len(degrees) == 1:
        StudentT(1.0, nu=degrees[0])
        return partial(StudentT, nu=degrees[0])
    raise ValueError(
        f"{text!r} is not a kernel: choose among {', '.join(KERNELS)} "
        "(or student-t:NU, with its degrees of freedom)"
    )


def scale(text: str) -> Scale:
    """Read ``0.5``, ``range:0.15`` or ``bounds:LOW,HIGH[,CONFIDENCE]``.

    Raises
    ------
    ValueError
        If it is none of these, or its numbers make no scale.
    """
    rule, colon, rest = text.rpartition(":")
    numbers = _numbers(rest)
    match rule, numbers:
        case "", [width] if not colon:
            return Width(width)
        case "range", [fraction]:
            return OfRange(fraction)
        case "bounds", [low, high, *confidence] if len(confidence) <= 1:
            return WithinBounds(low, high, *confidence)
    raise ValueError(
        f"{text!r} is not a scale: write a number in the input's units, range:0.15 (of max - min), "
        "or bounds:LOW,HIGH or bounds:LOW,HIGH,CONFIDENCE"
    )


def sampler(text: str) -> Sampler:
    """Read ``recentred:8``, ``sobol``, ``independent`` ...: a name, and for some the points of a group.

    Raises
    ------
    ValueError
        If there is no such sampler, or it has no such number of points.
    """
    name, colon, points = text.partition(":")
    if not colon and name in _FIXED_SAMPLERS:
        return _FIXED_SAMPLERS[name]()
    if name in _GROUPED_SAMPLERS and (not colon or points.isdecimal()):
        return _GROUPED_SAMPLERS[name](*([int(points)] if colon else []))
    raise ValueError(
        f"{text!r} is not a sampler: choose among {', '.join(_FIXED_SAMPLERS)}, "
        f"{', '.join(f'{grouped}[:POINTS]' for grouped in _GROUPED_SAMPLERS)}"
    )


def relative_error(text: str) -> RelativeError:
    """Read ``0.1``, of the whole map, or ``0.1:pooled``, of a view.

    Raises
    ------
    ValueError
        If it does not begin with a positive number.
    """
    r, _, view = text.partition(":")
    numbers = _numbers(r)
    if len(numbers) != 1:
        raise ValueError(f"{text!r} is not a relative error: write 0.1, or 0.1:pooled for that of a view")
    return RelativeError(numbers[0], view or None)


def budget(asked: argparse.Namespace) -> Budget:
    """Join the budgets that were asked for: the first that is reached ends the run."""
    parts: list[Budget] = []
    if asked.evaluations is not None:
        parts.append(Evaluations(asked.evaluations))
    if asked.relative_error is not None:
        parts.append(relative_error(asked.relative_error))
    if asked.seconds is not None:
        parts.append(Seconds(asked.seconds))
    return reduce(or_, parts) if parts else Seconds(DEFAULT_SECONDS)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mollikit", description="Smoothed gradients of neural networks, with error bars."
    )
    parser.add_argument("--version", action="version", version=f"mollikit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_explain(
        commands.add_parser(
            "explain",
            help="the smoothed gradient of a model at photos or arrays, with its error",
            description="Estimate the smoothed gradient of a model's output at each input, with its error. "
            "For each input, DIR receives a .png (of photos), a .npz with the arrays and a .json with all "
            "that is needed to repeat it. DIR is written whole or not at all.",
            epilog="exit codes: 0 done; 1 the model, an input or the folder is at fault; 2 wrong usage; "
            "130 interrupted (what was computed is written, and marked)",
        )
    )
    kernels.add_arguments(
        commands.add_parser(
            "kernels",
            help="the kernels, with the axioms that they satisfy",
            description="Print each kernel with the axioms of a mollifier and of an approximate identity.",
        )
    )
    return parser


def _add_explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file, such as model.onnx")
    add(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="an image; a .npy array of the input's shape; or a .npz of arrays by input name",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to be written")
    add("--force", action="store_true", help="replace DIR if an earlier run wrote it")
    add(
        "--target",
        default="top",
        metavar="INDEX|NAME|top",
        help="the output to explain: an index (of several axes: 0,3,7), a class name, or the largest "
        "(default)",
    )

    smoothing = parser.add_argument_group("smoothing").add_argument
    smoothing(
        "--kernel",
        type=_checked(kernel),
        default="gaussian",
        metavar="NAME",
        help=f"{', '.join(KERNELS)} (default: gaussian)",
    )
    smoothing(
        "--scale",
        type=_checked(scale),
        default="range:0.15",
        help="a width in the input's units, range:FRACTION of max - min, or bounds:LOW,HIGH[,CONFIDENCE] "
        "in the input's units (default: range:0.15)",
    )
    smoothing(
        "--sampler",
        type=_checked(sampler),
        default="recentred:8",
        metavar="NAME[:POINTS]",
        help=f"{', '.join([*_FIXED_SAMPLERS, *_GROUPED_SAMPLERS])}, with the points of a group "
        "(default: recentred:8)",
    )
    smoothing("--seed", type=_whole(0), help="default: drawn, and recorded")
    smoothing("--block", type=_whole(1), metavar="ROWS", help="rows in each call of the model")

    stopping = parser.add_argument_group("when to stop, the first of several").add_argument
    stopping("--evaluations", type=_whole(1), metavar="N", help="gradients to evaluate at most")
    stopping(
        "--relative-error",
        type=_checked(relative_error),
        metavar="R[:VIEW]",
        help="of the whole map, or of the view 'summed' or 'pooled'",
    )
    stopping("--seconds", type=_seconds, metavar="S", help=f"default: {DEFAULT_SECONDS:g}, for each input")

    images = parser.add_argument_group(
        "images (what is not given comes from the .toml beside the model, else from ImageNet's customs)"
    ).add_argument
    images("--size", type=_whole(1), nargs="+", metavar="N", help="height and width, or one for both")
    images("--mean", type=float, nargs="+", metavar="M", help="of each channel, of values from 0 to 1")
    images("--std", type=float, nargs="+", metavar="S")
    images("--layout", choices=["NCHW", "NHWC"])
    images("--crop-fraction", type=float, metavar="F", help="of the shorter side that is kept")
    images("--view-pool", type=_whole(1), metavar="N", help="pixels of a cell of the pooled view, each way")

    running = parser.add_argument_group("running").add_argument
    running(
        "--provider", nargs="+", action="extend", metavar="NAME", help="execution providers, by preference"
    )
    running("--json", action="store_true", help="the results as JSON on standard output, nothing else there")
    running("--quiet", action="store_true", help="no progress and no report")
    running("--debug", action="store_true", help="a traceback for every error")


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        return []


def _checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Check a word where argparse reports it, and keep it as it was written, for the record."""

    def word(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return word


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def _seconds(text: str) -> float:
    try:
        return Seconds(float(text)).s
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds") from None
