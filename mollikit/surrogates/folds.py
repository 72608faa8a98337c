from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.engine.streams import Key

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Folds:
    """Independent unbiased maps of equal cost, and how they were come by.

    Attributes
    ----------
    maps : ndarray (K, D)
    n_gradients : int
        Of all of them.
    provenance : dict
        Of the first: they differ in their seeds alone.
    """

    maps: Array
    n_gradients: int
    provenance: dict[str, Any]


def derived(key: Key, part: int) -> tuple[int, int]:
    """Return a seed and item for a part of a run: of parts and keys that differ in anything, independent."""
    words = np.random.SeedSequence([key.seed, key.item, part]).generate_state(2, np.uint64)
    return int(words[0]), int(words[1])
