from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Normals:
    """Points whose coordinates are standard normals; one view of a point set."""

    values: NDArray[Any]


@dataclass(frozen=True)
class Uniforms:
    """Points in the open unit cube; the other view of a point set. Always float64."""

    values: NDArray[Any]


# A point set seen through either view; a kernel turns both into its own law.
PointSet = Normals | Uniforms
