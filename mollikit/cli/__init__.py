"""The command line: ``mollikit explain MODEL INPUT...`` and ``mollikit kernels``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from mollikit.cli.arguments import KERNELS, build_parser
from mollikit.cli.explain import explain_inputs
from mollikit.cli.kernels import show_kernels

# What the shell reports for a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130
# Errors whose messages are written for people; of any other, the name is part of the message.
_FORESEEN = (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Returns
    -------
    int
        0, or 1 where the model, an input or the output folder is at fault, or 130 after Ctrl-C. Wrong
        usage leaves through argparse's SystemExit with 2.

    Examples
    --------
    >>> from mollikit.cli import main
    >>> main(["explain", "absent.onnx", "photo.jpg", "--out", "explained"])   # says what is wrong
    1
    """
    asked = build_parser().parse_args(arguments)
    try:
        if asked.command == "kernels":
            show_kernels(asked, KERNELS)
            return 0
        return INTERRUPTED if explain_inputs(asked).interrupted else 0
    except KeyboardInterrupt:
        print("mollikit: interrupted before there was anything to write", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the border: a person is told what is wrong, not where
        if asked.debug:
            traceback.print_exc()
        kind = "" if isinstance(error, _FORESEEN) else f"{type(error).__name__}: "
        print(f"mollikit: error: {kind}{error}", file=sys.stderr)
        return 1
