from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit import Top
from mollikit.cli.command import UsageError
from mollikit.cli.description import Description

_TOP = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model sees in one input, and which element of its output is explained.

    Attributes
    ----------
    output : ndarray
        One row of the model's output.
    target : tuple of int
        Index into it.
    classes : tuple of str
        Names of its elements; empty where they have none.
    """

    output: NDArray[Any]
    target: tuple[int, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, output: NDArray[Any], target: int | tuple[int, ...] | str, description: Description
    ) -> Predictions:
        """Check the target and the names against an output, and resolve "top".

        Raises
        ------
        ValueError
            If there are not as many names as outputs; as `UsageError`, if the target is out of range.
        """
        output = np.asarray(output)
        if description.classes and output.shape != (len(description.classes),):
            raise ValueError(
                f"{str(description.path)!r} names {len(description.classes)} classes, and the model's output "
                f"has the shape {output.shape}"
            )
        if isinstance(target, str):
            index = tuple(int(k) for k in np.unravel_index(int(np.argmax(output)), output.shape))
        else:
            index = target if isinstance(target, tuple) else (target,)
            inside = len(index) == output.ndim and all(
                k < n for k, n in zip(index, output.shape, strict=False)
            )
            if not inside:
                raise UsageError(f"--target {target} is out of range: a row of the output is {output.shape}")
        return cls(output, index, description.classes)

    def largest(self, count: int) -> list[Predictions]:
        """Return the same with each of the largest elements for its target, the largest first.

        Raises
        ------
        ValueError
            If there are fewer elements.
        """
        return [replace(self, target=target) for target in Top(count).of(self.output)]

    def name(self, index: int) -> str:
        """Return what a class is called."""
        return self.classes[index] if self.classes else f"output {index}"

    @property
    def target_label(self) -> str:
        """What the target is called in a title."""
        if len(self.target) == 1:
            return self.name(self.target[0])
        return f"output {list(self.target)}" if self.target else "the output"

    def top(self) -> list[dict[str, Any]]:
        """Return the largest elements of an output of classes, ready for JSON; none of other outputs.

        ``probability`` is the element itself where the row is a distribution, and its softmax otherwise.
        """
        if self.output.ndim != 1 or self.output.size < 2:
            return []
        values = self.output.astype(np.float64)
        probabilities = values if _is_distribution(values) else _softmax(values)
        order = np.argsort(-values, kind="stable")[:_TOP]
        return [
            {
                "index": int(k),
                "name": self.classes[k] if self.classes else None,
                "value": float(values[k]) if np.isfinite(values[k]) else None,
                "probability": float(probabilities[k]),
            }
            for k in order
        ]


def _is_distribution(values: NDArray[np.float64]) -> bool:
    return bool((values >= 0).all() and abs(values.sum() - 1) < 1e-3)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
