"""From what a model answers about a block of groups to the tally of the block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.estimators.base import Setting
from mollikit.moments import Moments, SecondMoments, Tally


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
    groups, size, rows = stop - start, setting.group_size, len(gradients)

    def grouped(points: NDArray[Any]) -> NDArray[Any]:
        return points[: groups * size].reshape(groups, size, *points.shape[1:])

    shares = None if weights is None else grouped(weights)
    points = grouped(gradients)
    means = _means(points, shares)
    if not np.isfinite(means).all():
        raise FloatingPointError(
            f"the oracle's gradient is NaN or infinite at {_bad(points)} of {groups * size} points of groups "
            f"{start} to {stop - 1}: the model is not differentiable there, or a smaller scale is needed"
        )
    answers, averages = None, None
    if values is not None:
        values = np.asarray(values)
        if values.shape != (rows,):
            raise ValueError(f"the oracle's values have shape {values.shape}; {rows} points need ({rows},)")
        answers = grouped(values)
        averages = _means(answers, shares)
        if not np.isfinite(averages).all():
            raise FloatingPointError(
                f"the oracle's value is NaN or infinite at {_bad(answers)} of {groups * size} points: it "
                "overflows there, or a smaller scale is needed; an oracle may return None for the value"
            )
    if not setting.second_moments:
        return tally_of_groups(setting, means, None if averages is None else Moments.of(averages))
    form = setting.perturbation.layout.unflatten
    views = {}
    for name, view in setting.views.items():
        of_means = np.asarray(view(form(means)), dtype=np.float64)
        of_points = np.asarray(view(form(points.reshape(groups * size, -1))))
        views[name] = SecondMoments.of_points(of_means, grouped(of_points), shares)
    return Tally(
        SecondMoments.of_points(means, points, shares),
        views,
        None if answers is None or averages is None else SecondMoments.of_points(averages, answers, shares),
    )


def _means(points: NDArray[Any], shares: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Means of groups (G, ...) from their points (G, g, ...) and importance weights (G, g)."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by name
        if shares is not None:
            points = points * shares.reshape(*shares.shape, *(1,) * (points.ndim - 2))
        return np.asarray(points.mean(axis=1, dtype=np.float64))


def _bad(points: NDArray[Any]) -> int:
    """Count the points (G, g, ...) with a NaN or an infinity."""
    return int((~np.isfinite(points)).reshape(points.shape[0] * points.shape[1], -1).any(axis=1).sum())
