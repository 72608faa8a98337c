from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Leaf:
    """One input of a model: its name (None for the only one), shape, dtype and place in the flat vector."""

    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    stop: int

    @property
    def label(self) -> str:
        """How errors call it."""
        return "the input" if self.name is None else f"input {self.name!r}"


@dataclass(frozen=True)
class Layout:
    """How one input, an array or a mapping of arrays, lies in a flat vector of D coordinates."""

    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, inputs: ArrayLike | Mapping[str, ArrayLike]) -> Layout:
        """Read the layout of one input and check it.

        Raises
        ------
        TypeError
            If an input is not of a floating dtype of at most 64 bits.
        ValueError
            If an input is empty, or holds a NaN or an infinity.
        """
        named = inputs.items() if isinstance(inputs, Mapping) else [(None, inputs)]
        leaves, start = [], 0
        for name, values in named:
            array = np.asarray(values)
            leaf = Leaf(name, array.shape, array.dtype, start, start + array.size)
            if not np.issubdtype(array.dtype, np.floating):
                raise TypeError(
                    f"{leaf.label} has dtype {array.dtype}, which cannot be smoothed: cast it to a float "
                    "dtype, or pass it in held= if it is an index, a mask or a token"
                )
            if array.dtype.itemsize > 8:
                raise TypeError(
                    f"{leaf.label} has dtype {array.dtype}: cast it to float64, the widest there is"
                )
            if array.size == 0:
                raise ValueError(f"{leaf.label} is empty (shape {array.shape})")
            bad = ~np.isfinite(array)
            if bad.any():
                first = tuple(map(int, np.unravel_index(int(np.argmax(bad)), array.shape)))
                raise ValueError(
                    f"{leaf.label} holds {int(bad.sum())} values that are NaN or infinite, "
                    f"the first at index {first}"
                )
            leaves.append(leaf)
            start = leaf.stop
        if not leaves:
            raise ValueError("the mapping of inputs is empty")
        return cls(tuple(leaves))

    @property
    def size(self) -> int:
        """The number D of coordinates."""
        return self.leaves[-1].stop

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds every input."""
        return np.result_type(*(leaf.dtype for leaf in self.leaves))

    def flatten(self, inputs: ArrayLike | Mapping[str, ArrayLike]) -> NDArray[Any]:
        """One input as a vector (D,)."""
        whole = inputs if isinstance(inputs, Mapping) else {None: inputs}
        parts = [np.asarray(whole[leaf.name]) for leaf in self.leaves]  # type: ignore[index]
        return np.concatenate([part.ravel() for part in parts]).astype(self.dtype, copy=False)

    def unflatten(self, rows: NDArray[Any]) -> Any:
        """Arrays (..., D) as the input's own form, (..., *shape); a single array is a view."""
        if self.leaves[0].name is None:
            return rows.reshape((*rows.shape[:-1], *self.leaves[0].shape))
        return {
            leaf.name: rows[..., leaf.start : leaf.stop].reshape((*rows.shape[:-1], *leaf.shape))
            for leaf in self.leaves
        }

    def points(self, rows: NDArray[Any]) -> Any:
        """A batch (m, D) as the points that an oracle takes, each input in its own dtype."""
        if self.leaves[0].name is None:
            return rows.reshape(len(rows), *self.leaves[0].shape)
        return {
            leaf.name: rows[:, leaf.start : leaf.stop].astype(leaf.dtype).reshape(len(rows), *leaf.shape)
            for leaf in self.leaves
        }

    def gradients(self, answer: Any, rows: int) -> NDArray[Any]:
        """An oracle's gradients of a batch as (m, D), checked.

        Raises
        ------
        TypeError, ValueError
            If the form or a shape is not that of the points.
        """
        if self.leaves[0].name is not None and not isinstance(answer, Mapping):
            raise TypeError(
                f"the oracle got a mapping of inputs and returned a gradient of type {type(answer).__name__}"
            )
        parts = []
        for leaf in self.leaves:
            if leaf.name is not None and leaf.name not in answer:
                raise ValueError(
                    f"the oracle returned no gradient for {leaf.label}, only for {sorted(answer)}"
                )
            part = np.asarray(answer if leaf.name is None else answer[leaf.name])
            if part.shape != (rows, *leaf.shape):
                raise ValueError(
                    f"the oracle's gradient for {leaf.label} has shape {part.shape}; "
                    f"points of shape {(rows, *leaf.shape)} need a gradient of the same shape"
                )
            parts.append(part.reshape(rows, -1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
