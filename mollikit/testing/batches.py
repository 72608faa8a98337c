from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mollikit.oracles import Array, Points


def by_name(points: Points) -> Mapping[str, Array]:
    """Points as a mapping, under the empty name where they are one array."""
    return points if isinstance(points, Mapping) else {"": points}


def each(points: Points, change: Callable[[Array], Array]) -> Points:
    """The same change made to every array."""
    if isinstance(points, Mapping):
        return {name: change(array) for name, array in points.items()}
    return change(points)


def n_rows(points: Points) -> int:
    """Length of the batch axis."""
    return len(next(iter(by_name(points).values())))


def flat(points: Points) -> Array:
    """Points as an array (m, D) in float64, all inputs side by side."""
    arrays = by_name(points).values()
    return np.concatenate([np.asarray(a, np.float64).reshape(len(a), -1) for a in arrays], axis=1)


def unflat(vectors: Array, like: Points) -> Any:
    """Rows (m, D) back in the form and the dtypes of ``like``."""
    start, arrays = 0, {}
    for name, array in by_name(like).items():
        size = array[0].size
        piece = vectors[:, start : start + size]
        arrays[name] = piece.reshape(len(vectors), *array.shape[1:]).astype(array.dtype)
        start += size
    return arrays if isinstance(like, Mapping) else arrays[""]
