from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Products:
    """What independent unbiased maps G_j and a surrogate S tell of each other, band by band.

    Attributes
    ----------
    gram : ndarray (K, K, bands)
        <G_j - G, G_k - G>, with G their mean.
    along : ndarray (K, bands)
        <G_j - G, G - S>.
    power : ndarray (bands,)
        |G - S|^2.
    """

    gram: Array
    along: Array
    power: Array

    @classmethod
    def of(cls, folds: Array, surrogate: Array, labels: NDArray[np.intp]) -> Products:
        """Multiply maps (K, D) with each other, each coefficient in its band."""
        count, bands = len(folds), int(labels.max()) + 1

        def sums(values: Array) -> Array:
            return np.asarray(np.bincount(labels, weights=values, minlength=bands), np.float64)

        mean = folds.mean(axis=0)
        apart = mean - surrogate
        deviations = folds - mean
        gram, along = np.empty((count, count, bands)), np.empty((count, bands))
        for j, one in enumerate(deviations):
            along[j] = sums(one * apart)
            for k in range(j + 1):
                gram[j, k] = gram[k, j] = sums(one * deviations[k])
        return cls(gram, along, sums(np.square(apart)))

    @property
    def count(self) -> int:
        """The number K of maps."""
        return len(self.gram)

    @property
    def noise(self) -> Array:
        """V of the mean of the maps in each band."""
        return np.asarray(np.trace(self.gram) / (self.count * (self.count - 1)))

    @property
    def concentration(self) -> Array:
        """Tr C^2 / (tr C)^2 of the covariance of the maps, in each band.

        Both are made unbiased for normal maps: for S with n degrees of freedom E tr S^2 = (1 + 1 / n) tr C^2
        + (tr C)^2 / n and E (tr S)^2 = (tr C)^2 + 2 tr C^2 / n.
        """
        n = self.count - 1
        squared_trace = np.square(np.trace(self.gram) / n)
        of_square = np.square(self.gram).sum(axis=(0, 1)) / n**2
        square = np.maximum(of_square - squared_trace / n, 0) * n**2 / ((n - 1) * (n + 2))
        whole = squared_trace - 2 * square / n
        return np.asarray(np.clip(np.divide(square, whole, out=np.zeros_like(whole), where=whole > 0), 0, 1))
