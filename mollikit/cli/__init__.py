"""The command line: ``mollikit COMMAND ...``; each command is a module here."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from mollikit import __version__
from mollikit.cli import compare, doctor, explain, kernels, vjp
from mollikit.cli.command import BROKEN_PIPE, INTERRUPTED, WRONG_USAGE, UsageError

COMMANDS = {
    command.name: command
    for command in (explain.COMMAND, compare.COMMAND, doctor.COMMAND, kernels.COMMAND, vjp.COMMAND)
}
# Errors whose messages are written for people; of any other, the name is part of the message.
_FORESEEN = (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mollikit", description="Smoothed gradients of neural networks, with error bars."
    )
    parser.add_argument("--version", action="version", version=f"mollikit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS.values():
        command.add_arguments(commands.add_parser(command.name, help=command.help))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Returns
    -------
    int
        0, or 1 where the model, an input or the output folder is at fault, or 2 where the options do not
        suit them, or 130 after Ctrl-C. Usage that is wrong by itself leaves through argparse's SystemExit
        with 2.

    Examples
    --------
    >>> from mollikit.cli import main
    >>> main(["explain", "absent.onnx", "photo.jpg", "--out", "explained"])   # says what is wrong
    1
    """
    asked = build_parser().parse_args(arguments)
    try:
        code = COMMANDS[asked.command].run(asked)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("mollikit: interrupted before there was anything to write", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Who read standard output has left; what Python still holds for it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # the border: a person is told what is wrong, not where
        if asked.debug:
            traceback.print_exc()
        kind = "" if isinstance(error, _FORESEEN) else f"{type(error).__name__}: "
        print(f"mollikit: error: {kind}{error}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else 1
