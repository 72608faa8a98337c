from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit_onnx.mean_gates.linear_model import LinearModel

Array = NDArray[Any]


@dataclass(frozen=True)
class ForwardMoments:
    """Averages over the forward passes so far, by name, in float64.

    Batches are merged by central moments, as in `mollikit.moments`; the sum of products of two series is
    merged in the same way.

    Source: Chan, Golub and LeVeque 1983; for products Bennett et al. 2009, "Numerically stable, single-pass,
    parallel statistics algorithms", equation II.5.
    """

    n: int
    values: Mapping[str, Array]

    @classmethod
    def of(cls, n: int, values: Mapping[str, Array]) -> ForwardMoments:
        """Averages over the n rows of one batch."""
        return cls(n, {name: value.astype(np.float64) for name, value in values.items()})

    def merged(self, other: ForwardMoments, model: LinearModel) -> ForwardMoments:
        """Averages over both."""
        n = self.n + other.n
        share, weight = other.n / n, self.n * other.n / n
        result: dict[str, Array] = {}

        def mean(name: str) -> Array:
            step = other.values[name] - self.values[name]
            result[name] = self.values[name] + step * share
            return np.asarray(step)

        for name in model.means:
            mean(name)
        for spread in model.spreads:
            source, leaf = mean(spread.mean), mean(spread.leaf)
            leaf *= source
            source *= source
            for name, step in ((spread.squares, source), (spread.products, leaf)):
                step *= weight
                step += self.values[name]
                step += other.values[name]
                result[name] = step
        return ForwardMoments(n, result)

    def feed(self, model: LinearModel) -> dict[str, Array]:
        """What the linear model takes."""
        feed = {name: self.values[name] for name in model.means}
        for spread in model.spreads:
            squares = self.values[spread.squares]
            feed |= {
                spread.mean: self.values[spread.mean],
                spread.squares: squares,
                spread.products: self.values[spread.products],
                spread.variance: _pooled(squares / (self.n - 1)),
            }
        return feed


def _pooled(variance: Array) -> Array:
    # Few passes tell the variance of one place badly, and places of a channel (1, C, *spatial) have much
    # the same: on EfficientNet-Lite0 their mean is the better guess at any number of passes up to 128.
    if variance.ndim < 4:
        return variance
    return np.broadcast_to(variance.mean(tuple(range(2, variance.ndim)), keepdims=True), variance.shape)
