"""Moments of groups, reduced where the points are; what leaves the graph has the size of one point."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto

from mollikit_onnx.graphs.tensor import Tensor


def first_moments(groups: Tensor) -> dict[str, Tensor]:
    """Parts of `Moments`, by name, from the means of groups (groups, ...) in double precision."""
    mean = groups.op("ReduceMean", [0], keepdims=1)
    return {"mean": mean.op("Squeeze", [0]), "m2": (groups - mean).op("ReduceSumSquare", [0], keepdims=0)}


def second_moments(points: Tensor) -> dict[str, Tensor]:
    """Parts of `SecondMoments`, by name, from points (groups, points, ...) in double precision."""
    means = points.op("ReduceMean", [1], keepdims=1)
    deviations = points - means
    means, within, squares = (
        means.op("Squeeze", [1]),
        (deviations * deviations).op("ReduceMean", [1], keepdims=0),
        (points * points).op("ReduceMean", [1], keepdims=0),
    )
    first, v, q = first_moments(means), first_moments(within), first_moments(squares)
    d, e = means - first["mean"], within - v["mean"]
    d2 = d * d
    sums: Mapping[str, Tensor] = {"m3": d2 * d, "m4": d2 * d2, "c11": e * d, "c12": e * d2}
    return {
        **first,
        "within": v["mean"],
        "within_m2": v["m2"],
        "square": q["mean"],
        "square_m2": q["m2"],
        **{name: terms.op("ReduceSum", [0], keepdims=0) for name, terms in sums.items()},
    }


def means_of(points: Tensor) -> Tensor:
    """Means (groups, ...) of points (groups, points, ...)."""
    return points.op("ReduceMean", [1], keepdims=0)


def double(points: Tensor) -> Tensor:
    """Points in double precision."""
    return points if points.dtype == TensorProto.DOUBLE else points.op("Cast", to=TensorProto.DOUBLE)
