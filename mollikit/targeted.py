from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

from mollikit.batches import one_row
from mollikit.oracles import Array, Points
from mollikit.targets import top


class Targeted(ABC):
    """An oracle of one element of a model's output, which may be the largest on the clean input.

    The base of the adapters' oracles: what they share of ``target="top"``.
    """

    _target: Any

    @abstractmethod
    def predict(self, points: Points, **held: Array) -> Array:
        """Return the model's outputs (m, *output_shape) for a batch of points."""

    def anchored(self, inputs: Any, **held: Array) -> Self:
        """Return this oracle with the target ``"top"`` fixed on the clean input; all else is shared.

        Parameters
        ----------
        inputs : array (*shape) or mapping of such arrays
            One input, without the batch axis.
        **held : array
            The model's other inputs for it, without the batch axis too.
        """
        if self._target != "top" or "target" in held:
            return self
        return self._aimed(top(self.predict(one_row(inputs), **one_row(held))[0]))

    def _aimed(self, target: tuple[int, ...]) -> Self:
        """Return this oracle with another target."""
        aimed = copy.copy(self)
        aimed._target = target
        return aimed
