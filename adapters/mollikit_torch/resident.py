"""Blocks of Pathwise where the model lives: only moments come back to the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

# Values (rows,) and gradients, by input name, of points by input name, under other weights if they are given.
Differentiated = Callable[[Mapping[str, Tensor], int, Any], tuple[Tensor, Mapping[str, Tensor]]]

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


@dataclass(frozen=True)
class ResidentBlocks:
    """What draws, moves and reduces on a device around one input; ``ask`` gives the model's gradients."""

    setting: Setting
    device: torch.device
    rows: int
    ask: Differentiated

    def tally(self, start: int, stop: int) -> Tally:
        """Tally groups start .. stop - 1."""
        s, size = self.setting, self.setting.group_size
        with computing(self.device, rows=self.rows, gradients=False, autocast=None):
            gradients, values = self._answers(start, stop)
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

    def _answers(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        s = self.setting
        steps = self._steps(start, stop)
        if s.weights is None:
            return self._asked(steps, self.rows, None)
        per_model, own, answers = s.inputs_per_model, s.oracle.weights, []
        assert per_model is not None
        for group in range(start, stop):
            models = s.weights.group(own, s.key, group)
            for member in range(s.weights.group_size):
                first = ((group - start) * s.weights.group_size + member) * per_model
                part = steps[first : first + per_model]
                answers.append(self._asked(part, min(self.rows, per_model), models.model(member)))
        gradients, values = zip(*answers, strict=True)
        return torch.cat(gradients), torch.cat(values)

    def _steps(self, start: int, stop: int) -> Tensor:
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

    def _asked(self, steps: Tensor, rows: int, weights: Any) -> tuple[Tensor, Tensor]:
        """Gradients (m, D) and values (m,) at the input moved by steps (m, moving), ``rows`` in a call."""
        gradients, values, leaves = [], [], self.setting.perturbation.layout.leaves
        for first in range(0, len(steps), rows):
            part = steps[first : first + rows]
            value, gradient = self.ask(self._points(part, rows), rows, weights)
            flat = [gradient[leaf.name or ""].reshape(rows, -1) for leaf in leaves]
            gradients.append(torch.cat(flat, dim=1)[: len(part)])
            values.append(value[: len(part)])
        return torch.cat(gradients), torch.cat(values)

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
