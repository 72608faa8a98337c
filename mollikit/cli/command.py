from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# What the shell reports for a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130
# And for one whose reader left: 128 + SIGPIPE.
BROKEN_PIPE = 141
# And what argparse reports for options that are wrong by themselves.
WRONG_USAGE = 2


class UsageError(ValueError):
    """Options that are wrong for this model or this input: ``main`` ends with `WRONG_USAGE`."""


@contextmanager
def used_on(subject: object) -> Iterator[None]:
    """Make `UsageError` of what options on a subject are refused with, and name it."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{str(subject)!r}: {error}") from error


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes
    ----------
    name : str
    help : str
        A line, for the list of commands.
    add_arguments : callable
        It gives the command's own parser its arguments, its description and its epilog.
    run : callable
        From what was asked to the exit code; its exceptions are told by ``main``.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
