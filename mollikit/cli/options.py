"""Options that several commands share, with the checks that argparse reports."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

from mollikit import Seconds
from mollikit.cli import words


def model(parser: argparse.ArgumentParser) -> None:
    """Add the model and its target."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file, such as model.onnx")
    add(
        "--target",
        default="top",
        metavar="INDEX|NAME|top",
        help="the output to explain: an index (of several axes: 0,3,7), a class name, or the largest "
        "(default)",
    )


def model_and_output(parser: argparse.ArgumentParser, out: Path | None) -> None:
    """Add the model, its target, and the folder to be written: required where it has no default."""
    model(parser)
    add = parser.add_argument
    default = "" if out is None else f" (default: {out})"
    add(
        "--out",
        type=Path,
        required=out is None,
        default=out,
        metavar="DIR",
        help=f"the folder to be written{default}",
    )
    add("--force", action="store_true", help="replace DIR if an earlier run wrote it")


def kernel_and_seed(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the group of smoothing, and return it for what a command adds to it."""
    group = parser.add_argument_group("smoothing")
    add = group.add_argument
    add(
        "--kernel",
        type=checked(words.kernel),
        default="gaussian",
        metavar="NAME",
        help=f"{', '.join(words.KERNELS)} (default: gaussian)",
    )
    add(
        "--scale",
        type=checked(words.scale),
        default="range:0.15",
        help="a width in the input's units, range:FRACTION of max - min, or bounds:LOW,HIGH[,CONFIDENCE] "
        "in the input's units (default: range:0.15)",
    )
    add("--seed", type=whole(0), help="default: drawn, and recorded")
    add("--block", type=whole(1), metavar="ROWS", help="rows in each call of the model")
    return group


def images(parser: argparse.ArgumentParser) -> None:
    """Add what makes a model's input of a photo."""
    add = parser.add_argument_group(
        "images (what is not given comes from the .toml beside the model, else from ImageNet's customs)"
    ).add_argument
    add("--size", type=whole(1), nargs="+", metavar="N", help="height and width, or one for both")
    add("--mean", type=float, nargs="+", metavar="M", help="of each channel, of values from 0 to 1")
    add("--std", type=float, nargs="+", metavar="S")
    add("--layout", choices=["NCHW", "NHWC"])
    add("--crop-fraction", type=float, metavar="F", help="of the shorter side that is kept")
    add("--view-pool", type=whole(1), metavar="N", help="pixels of a cell of the pooled view, each way")


def preprocessing(asked: argparse.Namespace) -> dict[str, Any]:
    """What was asked for of `images`, by the names of `Preprocessing`."""
    return {name: getattr(asked, name) for name in ("size", "crop_fraction", "mean", "std", "layout")}


def running(parser: argparse.ArgumentParser) -> None:
    """Add how the model is run and how much is said."""
    add = parser.add_argument_group("running").add_argument
    add("--provider", nargs="+", action="extend", metavar="NAME", help="execution providers, by preference")
    add("--json", action="store_true", help="the results as JSON on standard output, nothing else there")
    add("--quiet", action="store_true", help="no progress and no report")
    debug(parser)


def debug(parser: argparse.ArgumentParser) -> None:
    """Add --debug, which ``main`` reads."""
    parser.add_argument("--debug", action="store_true", help="a traceback for every error")


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Check a word where argparse reports it, and keep it as it was written, for the record."""

    def word(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return word


def whole(least: int) -> Callable[[str], int]:
    """Read a whole number of at least this."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def positive(text: str) -> float:
    """Read a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def seconds(text: str) -> float:
    """Read a positive number of seconds."""
    try:
        return Seconds(float(text)).s
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds") from None
