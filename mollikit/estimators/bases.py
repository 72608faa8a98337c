from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Basis(ABC):
    """A linear map B from a few coefficients to an input, for inputs with too many coordinates.

    Attributes
    ----------
    shape, input_shape : tuple of int
        Of the coefficients, and of the input.
    """

    shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    @abstractmethod
    def expand(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        """B c: coefficients (m, *shape) to inputs (m, *input_shape)."""

    @abstractmethod
    def image(self, gradients: NDArray[Any]) -> NDArray[Any]:
        """B (B^T B)^-1 g: gradients by the coefficients (m, *shape) to inputs (m, *input_shape).

        For g = B^T grad f it is the orthogonal projection of grad f onto the span of the basis.
        """


@dataclass(frozen=True, eq=False)
class Superpixels(Basis):
    """One coefficient for each region of a label map: c_k is added to every entry of region k.

    The gradient by c_k is the sum of the gradient over the region; its image is the region's mean.

    Source: Ribeiro et al. 2016, "Why should I trust you?", for regions as the features of a black box.

    Parameters
    ----------
    labels : array of int
        One label for each pixel, any integers. Axes that it lacks in front are shared: a map (H, W) moves all
        channels of a (C, H, W) image together.
    input_shape : tuple of int
        Shape of the input.

    Raises
    ------
    TypeError, ValueError
        If the labels are not integers, or their shape does not broadcast to the input's.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> basis = mk.Superpixels(np.array([[7, 7], [7, 3]]), (3, 2, 2))
    >>> basis.shape, basis.expand(np.array([[1.0, 5.0]]))[0, 0]
    ((2,), array([[5., 5.],
           [5., 1.]]))
    """

    labels: ArrayLike
    input_shape: tuple[int, ...]
    shape: tuple[int, ...] = field(init=False)
    _region: NDArray[np.intp] = field(init=False, repr=False)
    _sizes: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"Superpixels: labels have dtype {labels.dtype}; a label map holds integers")
        try:
            whole = np.broadcast_to(labels, self.input_shape)
        except ValueError:
            raise ValueError(
                f"Superpixels: labels of shape {labels.shape} do not broadcast to the input's "
                f"{self.input_shape}"
            ) from None
        _, region, sizes = np.unique(whole, return_inverse=True, return_counts=True)
        object.__setattr__(self, "shape", (len(sizes),))
        object.__setattr__(self, "_region", region.reshape(self.input_shape))
        object.__setattr__(self, "_sizes", sizes)

    def __repr__(self) -> str:
        return f"Superpixels({len(self._sizes)} regions of {self.input_shape})"

    def expand(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(coefficients[:, self._region])

    def image(self, gradients: NDArray[Any]) -> NDArray[Any]:
        return self.expand(gradients / self._sizes)


@dataclass(frozen=True)
class Cosines(Basis):
    """The lowest frequencies of the last two axes, by the orthonormal DCT-II; other axes keep their own.

    Source: Ahmed, Natarajan and Rao 1974, "Discrete cosine transform"; low frequencies as the space of a
    black-box search are those of Guo, Frank and Weinberger 2018, "Low frequency adversarial perturbation".

    Parameters
    ----------
    frequencies : (int, int)
        How many along each of the last two axes.
    input_shape : tuple of int
        Shape of the input, (..., H, W).

    Raises
    ------
    ValueError
        If the input has fewer than two axes, or fewer frequencies than are asked for.

    Examples
    --------
    >>> import mollikit as mk
    >>> mk.Cosines((8, 8), (3, 224, 224)).shape
    (3, 8, 8)
    """

    frequencies: tuple[int, int]
    input_shape: tuple[int, ...]
    shape: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.input_shape) < 2:
            raise ValueError(f"Cosines: an input of shape {self.input_shape} has no two axes to transform")
        for asked, length in zip(self.frequencies, self.input_shape[-2:], strict=True):
            if not 1 <= asked <= length:
                raise ValueError(
                    f"Cosines: {self.frequencies} frequencies of an image of {self.input_shape[-2:]} pixels; "
                    "an axis has as many as pixels, and at least one is kept"
                )
        object.__setattr__(self, "shape", (*self.input_shape[:-2], *self.frequencies))

    def expand(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        from scipy.fft import idctn

        # scipy pads with zeros up to s, which are the higher frequencies.
        return np.asarray(idctn(coefficients, s=self.input_shape[-2:], axes=(-2, -1), norm="ortho"))

    def image(self, gradients: NDArray[Any]) -> NDArray[Any]:
        return self.expand(gradients)


@dataclass(frozen=True, eq=False)
class Columns(Basis):
    """The columns of a matrix: principal directions, chosen features, patterns of one's own.

    Parameters
    ----------
    matrix : array (*input_shape, k)
        Linearly independent along the last axis; not necessarily orthogonal or of length one.

    Raises
    ------
    ValueError
        If the columns are not finite, or linearly dependent.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> basis = mk.Columns(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    >>> basis.expand(np.array([[0.5, 3.0]]))
    array([[0.5, 0.5, 6. ]])
    """

    matrix: ArrayLike
    input_shape: tuple[int, ...] = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    _columns: NDArray[np.float64] = field(init=False, repr=False)
    _dual: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.ndim < 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
            raise ValueError(
                f"Columns: a matrix of shape {matrix.shape}; give finite numbers of shape (*input_shape, k)"
            )
        columns = matrix.reshape(-1, matrix.shape[-1])
        rank = int(np.linalg.matrix_rank(columns))
        if rank < columns.shape[1]:
            raise ValueError(
                f"Columns: the {columns.shape[1]} columns span {rank} dimensions; drop the dependent ones"
            )
        object.__setattr__(self, "input_shape", matrix.shape[:-1])
        object.__setattr__(self, "shape", matrix.shape[-1:])
        object.__setattr__(self, "_columns", columns.T.copy())
        # B (B^T B)^-1 is the transposed pseudo-inverse.
        object.__setattr__(self, "_dual", np.linalg.pinv(columns))

    def __repr__(self) -> str:
        return f"Columns({prod(self.shape)} of {self.input_shape})"

    def expand(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        return (coefficients @ self._columns).reshape(-1, *self.input_shape)

    def image(self, gradients: NDArray[Any]) -> NDArray[Any]:
        return (gradients @ self._dual).reshape(-1, *self.input_shape)
