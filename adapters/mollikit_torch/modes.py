from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType

import torch
from torch import nn


def refuse_train_mode(model: nn.Module) -> None:
    """Raise ValueError where a layer is in train mode and computes something else there than in eval mode.

    BatchNorm in train mode couples the rows of a batch and rewrites its statistics; dropout makes the
    output random. A layer that never asks for its mode may be in either.
    """
    found = [
        f"{name or 'the model itself'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and _asks_for_its_mode(module)
    ]
    if found:
        raise ValueError(
            f"{_some(found)} in train mode, where the rows of a batch influence each other or the output "
            "is random: call model.eval() first"
        )


def _asks_for_its_mode(module: nn.Module) -> bool:
    """Whether a method of the module's class reads ``training``; nothing is known of compiled TorchScript."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    return any("training" in method.__code__.co_names for method in _methods(type(module)))


def _methods(cls: type) -> Iterator[FunctionType]:
    for owner in cls.__mro__:
        if owner is nn.Module or not issubclass(owner, nn.Module):
            continue
        for name, value in vars(owner).items():
            if isinstance(value, FunctionType) and not name.startswith("__"):
                yield value


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    if len(names) > 3:
        shown += f" and {len(names) - 3} more"
    return f"{shown} {'is' if len(names) == 1 else 'are'}"
