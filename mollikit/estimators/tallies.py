"""From what a model answers about a block of groups to the tally of the block."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Grouped:
    """What a model answered about a block of groups, checked.

    Attributes
    ----------
    points : ndarray
        Gradients (groups, points of a group, D).
    means : ndarray
        (groups, D).
    answers, averages : ndarray or None
        The model's values (groups, points of a group), and their means (groups,).
    shares : ndarray or None
        Importance weights (groups, points of a group).
    """

    points: NDArray[Any]
    means: NDArray[np.float64]
    answers: NDArray[Any] | None
    averages: NDArray[np.float64] | None
    shares: NDArray[np.float64] | None


def grouped(
    setting: Setting,
    start: int,
    stop: int,
    gradients: NDArray[Any],
    values: NDArray[Any] | None,
    weights: NDArray[np.float64] | None = None,
) -> Grouped:
    """Put the answers about groups start .. stop - 1 in their groups; arguments as of `tally_of_points`."""
    groups, size = stop - start, setting.group_size

    def in_groups(points: NDArray[Any]) -> NDArray[Any]:
        return points[: groups * size].reshape(groups, size, *points.shape[1:])

    shares = None if weights is None else in_groups(weights)
    points = in_groups(gradients)
    means = _means(points, shares)
    if not np.isfinite(means).all():
        raise FloatingPointError(
            f"the oracle's gradient is NaN or infinite at {_bad(points)} of {groups * size} points of groups "
            f"{start} to {stop - 1}: the model is not differentiable there, or a smaller scale is needed"
        )
    if values is None:
        return Grouped(points, means, None, None, shares)
    answers = in_groups(values)
    averages = _means(answers, shares)
    if not np.isfinite(averages).all():
        raise FloatingPointError(
            f"the oracle's value is NaN or infinite at {_bad(answers)} of {groups * size} points: it "
            "overflows there, or a smaller scale is needed; an oracle may return None for the value"
        )
    return Grouped(points, means, answers, averages, shares)


def tally_of_points(
    setting: Setting,
    start: int,
    stop: int,
    gradients: NDArray[Any],
    values: NDArray[Any] | None,
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
    FloatingPointError
        If a gradient or a value is NaN or infinite.
    """
    block = grouped(setting, start, stop, gradients, values, weights)
    means, averages, shares = block.means, block.averages, block.shares
    if not setting.second_moments:
        return tally_of_groups(setting, means, None if averages is None else Moments.of(averages))
    form = setting.perturbation.layout.unflatten
    groups, size, dimension = block.points.shape
    views = {}
    for name, view in setting.views.items():
        of_means = np.asarray(view(form(means)), dtype=np.float64)
        of_points = np.asarray(view(form(block.points.reshape(groups * size, dimension))))
        in_groups = of_points.reshape(groups, size, *of_points.shape[1:])
        views[name] = SecondMoments.of_points(of_means, in_groups, shares)
    output = None
    if averages is not None and block.answers is not None:
        output = SecondMoments.of_points(averages, block.answers, shares)
    return Tally(SecondMoments.of_points(means, block.points, shares), views, output)


def _means(points: NDArray[Any], shares: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Means of groups (G, ...) from their points (G, g, ...) and importance weights (G, g)."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by name
        if shares is not None:
            points = points * shares.reshape(*shares.shape, *(1,) * (points.ndim - 2))
        return np.asarray(points.mean(axis=1, dtype=np.float64))


def _bad(points: NDArray[Any]) -> int:
    """Count the points (G, g, ...) with a NaN or an infinity."""
    return int((~np.isfinite(points)).reshape(points.shape[0] * points.shape[1], -1).any(axis=1).sum())
