from __future__ import annotations

import argparse
from math import ceil

from mollikit import Combined, Pathwise
from mollikit.cli.command import UsageError
from mollikit.cli.models import adapter

_GROUP = "mollikit.surrogates"
# Unbiased gradients beside a surrogate where no evaluations are asked for: two for each of eight folds.
AUDIT = 16


def towards_surrogate(asked: argparse.Namespace, pathwise: Pathwise) -> tuple[Combined, int]:
    """Draw an estimator towards the surrogate of a kind of model, and return it with what it is to cost.

    An adapter registers a callable under the entry point group ``mollikit.surrogates``, by the suffix of its
    files. It is called with the kernel and ``forwards=``, the number of forward passes, and returns a
    `mollikit.Surrogate`.

    Raises
    ------
    UsageError
        If there is none for this kind of model, or another budget than evaluations is asked for.
    """
    for option in ("seconds", "relative_error"):
        if getattr(asked, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} with --forwards: the folds share a number of gradients known "
                "beforehand: give --evaluations N, of which each forward pass takes a third"
            )
    try:
        made = adapter(asked.model, _GROUP)(pathwise.inputs, forwards=asked.forwards)
    except ValueError as error:
        raise UsageError(f"--forwards {asked.forwards}: {error}") from error
    least = ceil(made.cost) + AUDIT
    return Combined(pathwise, made), least if asked.evaluations is None else asked.evaluations
