from __future__ import annotations

import numpy as np

from mollikit.engine.streams import Key


def derived(key: Key, part: int) -> tuple[int, int]:
    """Return a seed and item for a part of a run: of parts and keys that differ in anything, independent."""
    words = np.random.SeedSequence([key.seed, key.item, part]).generate_state(2, np.uint64)
    return int(words[0]), int(words[1])
