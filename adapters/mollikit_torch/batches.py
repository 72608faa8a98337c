from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mollikit.batches import Shape, check_shape
from mollikit.oracles import Array
from mollikit_torch.memory_format import copied
from mollikit_torch.tensors import tensor_of


@dataclass(frozen=True)
class Batch:
    """Points and held arrays as tensors; ``by_name`` where the points enter the model by keyword."""

    points: Mapping[str, Tensor]
    held: Mapping[str, Tensor]
    by_name: bool
    rows: int

    @classmethod
    def read(
        cls,
        points: Any,
        held: Mapping[str, Array],
        shapes: Mapping[str, Shape],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> Batch:
        """Read the arguments of an oracle; ``shapes`` are those of the inputs, where they are known.

        Raises
        ------
        ValueError, TypeError
            An input is missing, unknown, given twice, or of the wrong shape or dtype.
        """
        given = _by_name(points, shapes)
        both = sorted(given.keys() & held.keys())
        if both:
            raise ValueError(f"input {both[0]!r} is among the points and held too: give it once")
        tensors = {}
        for name, array in given.items():
            label = f"input {name!r}" if name else "the array of points"
            tensors[name] = tensor_of(array, label, device, dtype)
            if not tensors[name].is_floating_point():
                raise TypeError(
                    f"{label} is of {np.asarray(array).dtype}, which cannot be smoothed: give floats, hold "
                    "it by name, or smooth at the layer behind it (layer=)"
                )
            check_shape(label, tuple(tensors[name].shape), shapes.get(name))
        dtype = dtype or next(iter(tensors.values())).dtype
        fixed = {name: tensor_of(array, f"held {name!r}", device, dtype) for name, array in held.items()}
        lengths = {name or "points": len(tensor) for name, tensor in {**tensors, **fixed}.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every input has one row for each point; their batch axes are {lengths}")
        return cls(tensors, fixed, isinstance(points, Mapping) or bool(shapes), next(iter(lengths.values())))

    def copied(self, points: Mapping[str, Tensor], form: torch.memory_format) -> Batch:
        """Return a batch with copies of these points in the place of its own, on which a model may write."""
        return replace(
            self,
            points={name: copied(tensor, form) for name, tensor in points.items()},
            held={name: tensor.clone() for name, tensor in self.held.items()},
        )

    def doubled(self) -> Batch:
        """Return a batch with each row of this one twice."""
        points, held = (
            {name: tensor.repeat_interleave(2, dim=0) for name, tensor in tensors.items()}
            for tensors in (self.points, self.held)
        )
        return replace(self, points=points, held=held, rows=2 * self.rows)

    def zeros(self) -> Batch:
        """Return a batch of the same form with a single row of zeros."""
        points, held = (
            {name: tensor.new_zeros((1, *tensor.shape[1:])) for name, tensor in tensors.items()}
            for tensors in (self.points, self.held)
        )
        return replace(self, points=points, held=held, rows=1)


def _by_name(points: Any, shapes: Mapping[str, Shape]) -> Mapping[str, Any]:
    """Points by input name, under the empty one where there is an array and its name is not known."""
    if not isinstance(points, Mapping):
        if len(shapes) > 1:
            raise ValueError(f"points is a mapping of arrays by input name: the model has {list(shapes)}")
        return {next(iter(shapes), ""): points}
    if not points:
        raise ValueError("the mapping of points is empty")
    if shapes and points.keys() != shapes.keys():
        raise ValueError(f"points are of the inputs {list(points)}: the model has {list(shapes)}")
    return points
