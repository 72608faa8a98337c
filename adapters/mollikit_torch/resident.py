"""Blocks of Pathwise where the model lives: only moments come back to the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mollikit.estimators.base import Setting
from mollikit.estimators.nested import Nested
from mollikit.kernels import Gaussian
from mollikit.moments import Tally
from mollikit.samplers import Sampler
from mollikit_torch.draws import KERNELS, SAMPLERS, displacements, groups_of_normals
from mollikit_torch.reduction import first_moments, second_moments
from mollikit_torch.tensors import computing
from mollikit_torch.views import on_device

# Values (rows,) and gradients, by input name, of points by input name, under other weights if they are given:
# for each target.
Differentiated = Callable[[Mapping[str, Tensor], int, Any], Sequence[tuple[Tensor, Mapping[str, Tensor]]]]

_HOST = "or let the host draw: TorchOracle(..., resident=False)"


def check_resident(setting: Setting, device: torch.device) -> None:
    """Raise ValueError where a setting asks for what is not done on the device."""
    sampler = _inner(setting.sampler)
    if not isinstance(sampler, SAMPLERS) and setting.perturbation.dimension:
        raise ValueError(
            f"{sampler!r} is not drawn on {device}: give Independent(), Antithetic() or Recentred(), {_HOST}"
        )
    for draws, _ in setting.perturbation.draws:
        if type(draws) not in KERNELS:
            known = ", ".join(kernel.__name__ for kernel in KERNELS)
            raise ValueError(f"{type(draws).__name__} is not drawn on {device}: give {known}, {_HOST}")
    for name, view in setting.views.items():
        on_device(name, view)
    if device.type == "mps":
        raise ValueError(f"{device} has no double precision, which moments need: leave resident= out")


def tallies(
    blocks: Sequence[ResidentBlocks], start: int, stop: int, lent: Callable[[Any], Any]
) -> list[Tally]:
    """Tally groups start .. stop - 1 of each; ``lent`` brings a model's weights to the device, for all."""
    first = blocks[0]
    setting = first.setting
    with computing(first.device, rows=first.rows, gradients=False, autocast=None):
        answers = [Answers(block.steps(start, stop)) for block in blocks]
        if setting.weights is None:
            for block, found in zip(blocks, answers, strict=True):
                block.ask_about(found, len(found.steps), block.rows, None)
        else:
            for model in setting.weights.models(setting.oracle.weights, setting.key, start, stop):
                tensors = lent(model)
                for block, found in zip(blocks, answers, strict=True):
                    count = block.setting.inputs_per_model
                    assert count is not None
                    block.ask_about(found, count, min(block.rows, count), tensors)
                del model, tensors  # before the next is drawn
        return [
            tally
            for block, found in zip(blocks, answers, strict=True)
            for tally in block.tallies(found, start, stop)
        ]


@dataclass
class Answers:
    """Displacements (points, moving) of a block, and what has been answered about the first of them."""

    steps: Tensor
    found: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)  # by call and target
    count: int = 0


@dataclass(frozen=True)
class ResidentBlocks:
    """What draws, moves and reduces on a device around one input; ``ask`` gives the model's gradients.

    Several settings differ in the held target alone.
    """

    settings: Sequence[Setting]
    device: torch.device
    rows: int
    ask: Differentiated

    @property
    def setting(self) -> Setting:
        """What the settings have in common."""
        return self.settings[0]

    def ask_about(self, answers: Answers, count: int, rows: int, weights: Any) -> None:
        """Ask for the gradients at the next ``count`` points, ``rows`` in a call."""
        steps, leaves = answers.steps[answers.count :][:count], self.setting.perturbation.layout.leaves
        answers.count += count
        for first in range(0, count, rows):
            part = steps[first : first + rows]
            found = []
            for value, gradient in self.ask(self._points(part, rows), rows, weights):
                flat = [gradient[leaf.name or ""].reshape(rows, -1) for leaf in leaves]
                found.append((torch.cat(flat, dim=1)[: len(part)], value[: len(part)]))
            answers.found.append(found)

    def tallies(self, answers: Answers, start: int, stop: int) -> list[Tally]:
        """Tally groups start .. stop - 1, for each target."""
        return [self._tally(parts, start, stop) for parts in zip(*answers.found, strict=True)]

    def _tally(self, parts: Sequence[tuple[Tensor, Tensor]], start: int, stop: int) -> Tally:
        s, size = self.setting, self.setting.group_size
        gradients, values = (torch.cat(column) for column in zip(*parts, strict=True))
        if not bool(values.isfinite().all()):
            raise FloatingPointError(
                f"the oracle's value is NaN or infinite in groups {start} to {stop - 1}: it overflows "
                "there, or a smaller scale is needed"
            )
        moments = second_moments if s.second_moments else first_moments
        formed, views = self._formed(gradients), {}
        for name, view in s.views.items():
            views[name] = moments(on_device(name, view)(formed), size)
        return Tally(moments(gradients, size), views, moments(values, size))

    def steps(self, start: int, stop: int) -> Tensor:
        """Displacements (points, moving coordinates) in units of the widths."""
        s, p = self.setting, self.setting.perturbation
        count, dtype = (stop - start) * s.group_size, _dtype(p.base)
        if not p.dimension:
            return torch.zeros((count, 0), device=self.device, dtype=dtype)
        sampler = _inner(s.sampler)
        ratio = s.group_size // sampler.group_size(p.dimension)
        z = groups_of_normals(s.key, sampler, start * ratio, stop * ratio, p.dimension, self.device, dtype)
        z = z.reshape(count, p.dimension)
        if all(isinstance(draws, Gaussian) for draws, _ in p.draws):
            return z
        return torch.cat([displacements(draws, z[:, part]).to(dtype) for draws, part in p.draws], dim=1)

    def _points(self, steps: Tensor, rows: int) -> dict[str, Tensor]:
        base, widths, moving = self._clean
        moved = base.repeat(rows, 1)  # rows beyond the steps are the clean input
        if moving is None:
            moved[: len(steps)] += steps * widths
        else:
            moved[: len(steps), moving] += steps * widths[moving]
        leaves = self.setting.perturbation.layout.leaves
        return {
            leaf.name or "": moved[:, leaf.start : leaf.stop].reshape(rows, *leaf.shape) for leaf in leaves
        }

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The input, its widths and the places of what moves: three vectors, sent once for a block."""
        p = self.setting.perturbation
        base, widths = (torch.tensor(array, device=self.device) for array in (p.base, p.widths))
        return base, widths, None if p.moving is None else torch.tensor(p.moving, device=self.device)

    def _formed(self, rows: Tensor) -> Any:
        leaves = self.setting.perturbation.layout.leaves
        parts = {leaf.name: rows[:, leaf.start : leaf.stop].reshape(-1, *leaf.shape) for leaf in leaves}
        return parts.get(None, parts)


def _inner(sampler: Sampler) -> Sampler:
    return sampler.sampler if isinstance(sampler, Nested) else sampler


def _dtype(base: np.ndarray[Any, Any]) -> torch.dtype:
    return torch.float64 if base.dtype.itemsize == 8 else torch.float32
