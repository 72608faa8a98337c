from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mollikit.estimators.base import Setting
from mollikit.oracles import GradientOracle

# Values (rows,), or None, and gradients (rows, D).
Answer: TypeAlias = tuple[NDArray[Any] | None, NDArray[Any]]


def answers(setting: Setting, oracle: GradientOracle, steps: NDArray[Any], rows: int) -> Answer:
    """Ask an oracle about the input moved by these steps, in one call of ``rows`` rows.

    Parameters
    ----------
    setting : Setting
    oracle : GradientOracle
        The setting's own, or one with other weights.
    steps : array (m, moving coordinates)
        Draws of the kernels' standard forms; their memory may be used. Rows beyond them are the clean input.
    rows : int

    Returns
    -------
    values : array (rows,) or None
    gradients : array (rows, D)

    Raises
    ------
    TypeError, ValueError
        If the form or a shape of the answer is not that of the points.
    """
    (answer,) = answers_of([setting], oracle, steps, rows)
    return answer


def answers_of(settings: Sequence[Setting], oracle: Any, steps: NDArray[Any], rows: int) -> list[Answer]:
    """Ask about the targets of several settings, alike in all else, as `answers` does about one.

    The oracle is asked once, and is `Multitarget` where there are several.
    """
    first, count = settings[0], len(settings)
    layout = first.perturbation.layout
    points = layout.points(first.perturbation.moved(steps, rows))
    held = {name: np.broadcast_to(v, (rows, *v.shape)) for name, v in first.held.items()}
    if count == 1:
        found = [oracle.value_and_gradient(points, **held)]
    else:
        targets = np.stack([setting.held["target"] for setting in settings])
        del held["target"]
        values, gradients = oracle.values_and_gradients(points, targets, **held)
        if len(gradients) != count or (values is not None and len(values) != count):
            raise ValueError(
                f"the oracle answered about {len(gradients)} targets with gradients and about "
                f"{'none' if values is None else len(values)} with values, and {count} were asked for"
            )
        found = list(zip([None] * count if values is None else values, gradients, strict=True))
    return [(_checked(values, rows), layout.gradients(answer, rows)) for values, answer in found]


def by_points(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Settings in their order, those that differ in the held target alone, at the same points, together."""
    return [list(alike) for _, alike in groupby(settings, key=lambda setting: id(setting.perturbation))]


def _checked(values: Any, rows: int) -> NDArray[Any] | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (rows,):
        raise ValueError(f"the oracle's values have shape {array.shape}; {rows} points need ({rows},)")
    return array
