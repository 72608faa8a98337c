"""From what a model answers about a block of groups to the tally of the block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.estimators.base import Setting
from mollikit.moments import Moments, Tally


def tally_of_groups(setting: Setting, means: NDArray[np.float64], output: Moments | None) -> Tally:
    """Tally the means (groups, D) of independent groups, and the views of them."""
    layout = setting.perturbation.layout
    views = {name: Moments.of(view(layout.unflatten(means))) for name, view in setting.views.items()}
    return Tally(Moments.of(means), views, output)


def tally_of_points(
    setting: Setting,
    start: int,
    stop: int,
    gradients: NDArray[Any],
    values: Any,
    weights: NDArray[np.float64] | None = None,
) -> Tally:
    """Tally the gradients and the values of the points of groups start .. stop - 1.

    Parameters
    ----------
    setting : Setting
    start, stop : int
    gradients : array (m, D)
        The points of the groups, in order; rows beyond them are padding.
    values : array (m,) or None
        The model's, where it gives any.
    weights : array (points,), optional
        Importance weights.

    Raises
    ------
    ValueError
        If the values do not have the shape of the rows.
    FloatingPointError
        If a gradient or a value is NaN or infinite.
    """
    groups = stop - start
    used, rows = groups * setting.group_size, len(gradients)
    gradients = gradients[:used]
    if weights is not None:
        gradients = gradients * weights[:, None]
    with np.errstate(invalid="ignore"):  # infinities are refused below
        means = gradients.reshape(groups, setting.group_size, -1).mean(axis=1, dtype=np.float64)
    if not np.isfinite(means).all():
        bad = np.flatnonzero(~np.isfinite(gradients).all(axis=1))
        raise FloatingPointError(
            f"the oracle's gradient is NaN or infinite at {len(bad)} of {used} points of groups {start} "
            f"to {stop - 1}: the model is not differentiable there, or a smaller scale is needed"
        )
    output = None if values is None else _output(np.asarray(values), rows, weights, groups, used)
    return tally_of_groups(setting, means, output)


def _output(
    values: NDArray[Any], rows: int, weights: NDArray[np.float64] | None, groups: int, used: int
) -> Moments:
    if values.shape != (rows,):
        raise ValueError(f"the oracle's values have shape {values.shape}; {rows} points need ({rows},)")
    values = values[:used] if weights is None else values[:used] * weights
    if bad := int((~np.isfinite(values)).sum()):
        raise FloatingPointError(
            f"the oracle's value is NaN or infinite at {bad} of {used} points: it overflows there, "
            "or a smaller scale is needed; an oracle may return None for the value"
        )
    return Moments.of(values.reshape(groups, -1).mean(axis=1, dtype=np.float64))
