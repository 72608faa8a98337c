from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

_Result = TypeVar("_Result")
_AXES = {torch.channels_last: 4, torch.channels_last_3d: 5}


class MemoryFormat:
    """In which order the elements of images lie when they enter the model.

    Left to itself it is ``channels_last`` on the CPU, where convolutions are up to twice as fast
    so, until a model proves unable to take it (a ``view`` of its features needs them contiguous): that
    depends on shapes alone, so every call of the same shape ends in the same format.
    """

    def __init__(self, asked: torch.memory_format | None, device: torch.device) -> None:
        self._automatic = asked is None and device.type == "cpu"
        self.form: torch.memory_format = asked or (
            torch.channels_last if self._automatic else torch.contiguous_format
        )

    def __str__(self) -> str:
        return str(self.form).removeprefix("torch.")

    def tried(self, run: Callable[[torch.memory_format], _Result], points: Iterable[Tensor]) -> _Result:
        """Return ``run(form)``; a format that was not asked for is given up where it raises an error."""
        form = self.form
        if not self._automatic or form != torch.channels_last or all(t.ndim != 4 for t in points):
            return run(form)
        try:
            return run(form)
        except RuntimeError:
            result = run(torch.contiguous_format)
            self.form = torch.contiguous_format
            return result


def copied(tensor: Tensor, form: torch.memory_format) -> Tensor:
    """Return a copy in a memory format, contiguous where the format is for another number of axes."""
    fits = _AXES.get(form, tensor.ndim) == tensor.ndim
    return tensor.clone(memory_format=form if fits else torch.contiguous_format)
