"""From the moments that a graph gives to the tally of a block of groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mollikit.estimators.base import Setting
from mollikit.moments import Moments, SecondMoments, Tally


class Answers:
    """Moments of points under each draw of the weights, merged to the groups that they belong to."""

    def __init__(self) -> None:
        self._group: list[Moments] = []
        self._groups: list[list[Moments]] = []

    def add(self, found: list[Moments]) -> None:
        """Take the moments of some points of the group that is under way."""
        if self._group:
            found = [one.merged(other) for one, other in zip(self._group, found, strict=True)]
        self._group = found

    def end_group(self) -> None:
        """Go on to the next group."""
        self._groups.append(self._group)
        self._group = []

    def tally(self, setting: Setting, start: int, stop: int) -> Tally:
        """Tally the groups."""
        found: list[Moments] = []
        for groups in zip(*self._groups, strict=True):
            means = np.stack([group.mean for group in groups])
            if setting.second_moments:
                within = np.stack([group.m2 / group.n for group in groups])
                found.append(SecondMoments.of_groups(means, within, within + means**2))
            else:
                found.append(Moments.of(means))
        return tally_of(setting, found, start, stop)


def tally_of(setting: Setting, found: Sequence[Moments], start: int, stop: int) -> Tally:
    """Tally what was found of the leaves, the views and the values."""
    leaves, names = len(setting.perturbation.layout.leaves), list(setting.views)
    gradient = _joined(found[:leaves])
    views = dict(zip(names, found[leaves:], strict=False))
    output = found[leaves + len(names)] if len(found) > leaves + len(names) else None
    where = f"is NaN or infinite in groups {start} to {stop - 1}"
    if not np.isfinite(gradient.mean).all():
        raise FloatingPointError(
            f"the oracle's gradient {where}: the model is not differentiable there, or a smaller scale is "
            "needed"
        )
    if output is not None and not np.isfinite(output.mean).all():
        raise FloatingPointError(
            f"the oracle's value {where}: it overflows there, or a smaller scale is needed"
        )
    return Tally(gradient, views, output)


def _joined(leaves: Sequence[Moments]) -> Moments:
    """Moments of several inputs as those of one vector."""
    first = leaves[0]
    parts = {
        part: np.concatenate([np.ravel(getattr(leaf, part)) for leaf in leaves]) for part in first.parts()
    }
    return type(first)(first.n, **parts)
