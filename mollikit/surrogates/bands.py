from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mollikit.layout import Layout

Array = NDArray[np.float64]


class Bands(ABC):
    """An orthonormal transform of gradients, and a partition of its coefficients.

    Within a band every coefficient is given the same weight; it pays where the coefficients of a band have
    about the same ratio of signal to noise.
    """

    @abstractmethod
    def labels(self, layout: Layout) -> NDArray[np.intp]:
        """Band of each of the D coefficients, (D,), counted from 0."""

    @abstractmethod
    def coefficients(self, gradients: Array, layout: Layout) -> Array:
        """Transform gradients (..., D)."""

    @abstractmethod
    def gradients(self, coefficients: Array, layout: Layout) -> Array:
        """Transform back."""


@dataclass(frozen=True)
class WholeBand(Bands):
    """One band of everything: a single weight for the map.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> from mollikit.layout import Layout
    >>> mk.WholeBand().labels(Layout.of(np.ones(3)))
    array([0, 0, 0])
    """

    def labels(self, layout: Layout) -> NDArray[np.intp]:
        return np.zeros(layout.size, np.intp)

    def coefficients(self, gradients: Array, layout: Layout) -> Array:
        return gradients

    def gradients(self, coefficients: Array, layout: Layout) -> Array:
        return coefficients


@dataclass(frozen=True)
class CosineBands(Bands):
    """Rings of frequencies of the last two axes, by the orthonormal DCT-II; the other axes share them.

    The gradients of images have their signal in low and middle frequencies, and much of their noise in high
    ones. Inputs without two axes of at least 8 places are one band each.

    Source: Ahmed, Natarajan and Rao 1974, "Discrete cosine transform".

    Parameters
    ----------
    count : int
        Rings, at radii in geometric progression from 3 cycles to the corner.

    Raises
    ------
    ValueError
        If the count is not positive.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> from mollikit.layout import Layout
    >>> np.bincount(mk.CosineBands(4).labels(Layout.of(np.ones((3, 16, 16)))))
    array([ 27,  72, 252, 417])
    """

    count: int = 8

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"CosineBands({self.count!r}): there is at least one band")

    def labels(self, layout: Layout) -> NDArray[np.intp]:
        parts, first = [], 0
        for leaf in layout.leaves:
            band = np.zeros(leaf.shape, np.intp)
            if _is_image(leaf.shape):
                height, width = leaf.shape[-2:]
                longer = max(height, width)
                rows, columns = np.arange(height) * longer / height, np.arange(width) * longer / width
                radius = np.hypot(rows[:, None], columns)
                edges = np.geomspace(3, np.sqrt(2) * longer, self.count)[:-1]
                band[...] = np.digitize(radius, edges)
            parts.append(band.ravel() + first)
            first += int(band.max()) + 1
        return np.concatenate(parts)

    def coefficients(self, gradients: Array, layout: Layout) -> Array:
        from scipy.fft import dctn

        return self._transformed(dctn, gradients, layout)

    def gradients(self, coefficients: Array, layout: Layout) -> Array:
        from scipy.fft import idctn

        return self._transformed(idctn, coefficients, layout)

    @staticmethod
    def _transformed(transform: object, rows: Array, layout: Layout) -> Array:
        assert callable(transform)
        result = np.array(rows, dtype=np.float64)
        for leaf in layout.leaves:
            if _is_image(leaf.shape):
                own = result[..., leaf.start : leaf.stop]
                image = own.reshape((*own.shape[:-1], *leaf.shape))
                own[...] = transform(image, axes=(-2, -1), norm="ortho").reshape(own.shape)
        return result


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and min(shape[-2:]) >= 8
