from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers.base import Sampler

# What may be given as the randomness of an estimate.
Rng = int | tuple[int, int] | np.random.Generator | None

# A stream serves whole groups of about this many values together: enough that setting it costs little,
# few enough that drawing a stream to use a part of it does not hurt.
_VALUES_PER_STREAM = 1 << 14
_WORD = 1 << 64
# The third word of the counter says what the numbers are for: an input's streams have zero there.
_WEIGHTS = 1


@dataclass(frozen=True)
class Key:
    """A seed and an item: with the number of a group, the whole address of its random numbers.

    Philox is a counter-based generator: its state is this address, so any group can be drawn by any
    worker at any time, with the same bits.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """

    seed: int
    item: int = 0

    @classmethod
    def of(cls, rng: Rng) -> Key:
        """Read a seed, a (seed, item) pair, a Generator (one word is drawn) or None (a seed of the system's).

        Raises
        ------
        TypeError, ValueError
            If it is none of these, or a number is outside 0 .. 2^64 - 1.
        """
        if rng is None:
            return cls(secrets.randbits(64))
        if isinstance(rng, np.random.Generator):
            return cls(int(rng.integers(0, _WORD, dtype=np.uint64)))
        pair = rng if isinstance(rng, tuple) else (rng, 0)
        if len(pair) != 2 or not all(
            isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in pair
        ):
            raise TypeError(
                f"rng={rng!r}: give a seed, a pair (seed, item), a numpy.random.Generator or None"
            )
        seed, item = (int(n) for n in pair)
        if not (0 <= seed < _WORD and 0 <= item < _WORD):
            raise ValueError(f"rng={rng!r}: seeds and items are integers from 0 to 2^64 - 1")
        return cls(seed, item)

    def groups(
        self,
        sampler: Sampler,
        start: int,
        stop: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        """Draw groups start .. stop - 1, as values (groups, group_size, *shape).

        A group's points depend on its number alone, not on the range that is asked for.
        """
        dimension = int(np.prod(shape))
        per_stream = groups_per_stream(sampler.group_size(dimension) * dimension)
        bits = np.random.Philox(key=np.array([self.seed, self.item], dtype=np.uint64))
        fresh: Any = bits.state
        rng = np.random.Generator(bits)
        parts: list[NDArray[Any]] = []
        kind: type[Normals] | type[Uniforms] = view
        for stream in range(start // per_stream, (stop - 1) // per_stream + 1):
            fresh["state"]["counter"] = np.array([0, 0, 0, stream], dtype=np.uint64)
            bits.state = fresh
            drawn = sampler.draw(rng, per_stream, shape, dtype, view)
            first = stream * per_stream
            kind = type(drawn)
            parts.append(drawn.values[max(start - first, 0) : stop - first])
        return kind(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def of_weights(
        self,
        sampler: Sampler,
        name: str,
        group: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        """Draw one group for a tensor of weights, as values (1, group_size, *shape).

        Its address is the seed, the tensor's name and the group: the item is no part of it.
        """
        address = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        key = np.array([self.seed, address], dtype=np.uint64)
        counter = np.array([0, 0, _WEIGHTS, group], dtype=np.uint64)
        return sampler.draw(
            np.random.Generator(np.random.Philox(key=key, counter=counter)), 1, shape, dtype, view
        )


def groups_per_stream(values_per_group: int) -> int:
    """Return how many groups a stream serves: a power of two, so that such blocks use whole streams."""
    return 1 << max(0, (_VALUES_PER_STREAM // values_per_group).bit_length() - 1)
