from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms

Floats = NDArray[np.floating[Any]]


class Draws(Protocol):
    """What turns a point set into displacements of the coordinates that move, in units of their widths."""

    @property
    def view(self) -> type[Normals] | type[Uniforms]:
        """The view of a point set from which the displacements come cheapest."""
        ...

    @property
    def effective_share(self) -> float:
        """Effective sample size over the number of points: 1 where they carry no weights."""
        ...

    def displacements(self, points: PointSet) -> Floats:
        """Displacements, of the points' shape (m, moving coordinates)."""
        ...

    def weights(self, displacements: Floats) -> NDArray[np.float64] | None:
        """Exact importance weights (m,) of displacements; None where each is 1."""
        ...


class Law(ABC):
    """How an input is perturbed: a kernel, or a law made of one.

    Attributes
    ----------
    estimand : str
        What the mean of the gradient under this law is.
    """

    estimand: ClassVar[str] = "gradient of the smoothed function"

    @abstractmethod
    def widths(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Widths of the input's shape, in its units."""

    @abstractmethod
    def at(self, inputs: NDArray[Any]) -> Draws:
        """Return the law of the displacements around one input."""
