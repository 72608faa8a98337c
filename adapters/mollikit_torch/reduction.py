"""Moments of groups, reduced where the points are; what comes back has the size of one point."""

from __future__ import annotations

from torch import Tensor, float64

from mollikit.moments import Moments, SecondMoments
from mollikit_torch.tensors import array_of


def first_moments(points: Tensor, size: int) -> Moments:
    """Moments of the means of groups, from points (groups * size, ...)."""
    return _moments(_grouped(points, size).mean(dim=1, dtype=float64))


def second_moments(points: Tensor, size: int) -> SecondMoments:
    """`SecondMoments` of groups, from points (groups * size, ...)."""
    groups = _grouped(points, size).double()
    means = groups.mean(dim=1)
    within = (groups - means[:, None]).square().mean(dim=1)
    first, v, q = _moments(means), _moments(within), _moments(groups.square().mean(dim=1))
    d, e = means - means.mean(dim=0), within - within.mean(dim=0)
    return SecondMoments(
        n=first.n,
        mean=first.mean,
        m2=first.m2,
        m3=array_of((d**3).sum(dim=0)),
        m4=array_of((d**4).sum(dim=0)),
        within=v.mean,
        within_m2=v.m2,
        c11=array_of((e * d).sum(dim=0)),
        c12=array_of((e * d**2).sum(dim=0)),
        square=q.mean,
        square_m2=q.m2,
    )


def _grouped(points: Tensor, size: int) -> Tensor:
    return points.reshape(-1, size, *points.shape[1:])


def _moments(rows: Tensor) -> Moments:
    mean = rows.mean(dim=0)
    return Moments(len(rows), array_of(mean), array_of((rows - mean).square().sum(dim=0)))
