from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Spread:
    """What is seen of a nonlinearity, with s its source and y what it gives: arrays of one row.

    Attributes
    ----------
    mean, leaf
        The means of s and y.
    squares, products
        The sums of (s - mean)^2 and of (s - mean) y.
    """

    mean: Any
    squares: Any
    leaf: Any
    products: Any

    def variance(self, n: int) -> Any:
        """Variance of s over n passes, averaged over the places of a channel (1, C, *spatial).

        Few passes tell the variance of one place badly, and places of a channel have much the same: on
        EfficientNet-Lite0 their mean is the better guess at any number of passes up to 128.
        """
        variance = self.squares / (n - 1)
        return variance if variance.ndim < 4 else variance.mean(tuple(range(2, variance.ndim)), keepdims=True)


@dataclass(frozen=True, eq=False)
class ForwardMoments:
    """Averages over the forward passes so far, by name: arrays of float64 of any framework.

    Batches are merged by central moments, as in `mollikit.moments`; the sum of products of two series is
    merged in the same way.

    Source: Chan, Golub and LeVeque 1983; for products Bennett et al. 2009, "Numerically stable, single-pass,
    parallel statistics algorithms", equation II.5.
    """

    n: int
    means: Mapping[str, Any]
    spreads: Mapping[str, Spread]

    def merged(self, other: ForwardMoments) -> ForwardMoments:
        """Averages over both."""
        n = self.n + other.n
        share, weight = other.n / n, self.n * other.n / n
        means = {name: own + (other.means[name] - own) * share for name, own in self.means.items()}
        spreads = {}
        for name, own in self.spreads.items():
            new = other.spreads[name]
            source, leaf = new.mean - own.mean, new.leaf - own.leaf
            mean, mean_leaf = own.mean + source * share, own.leaf + leaf * share
            leaf *= source
            source *= source
            for step, parts in (
                (source, (own.squares, new.squares)),
                (leaf, (own.products, new.products)),
            ):
                step *= weight
                for part in parts:
                    step += part
            spreads[name] = Spread(mean, source, mean_leaf, leaf)
        return ForwardMoments(n, means, spreads)

    def not_finite(self) -> str | None:
        """Name an average that is NaN or infinite, where there is one."""
        parts = [*self.means.items()]
        for name, s in self.spreads.items():
            parts += [(name, part) for part in (s.mean, s.squares, s.leaf, s.products)]
        return next((name for name, part in parts if not np.isfinite(float(part.sum()))), None)
