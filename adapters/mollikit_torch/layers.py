from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn


def check_layer(module: nn.Module, layer: str) -> None:
    """Raise ValueError where the module has no such layer."""
    names = [name for name, _ in module.named_modules() if name]
    if layer not in names:
        near = get_close_matches(layer, names, n=5) or names[:10]
        raise ValueError(
            f"the model has no layer {layer!r}: choose among model.named_modules(), such as {near}"
        )


@contextmanager
def replaced(module: nn.Module, layer: str, points: Tensor) -> Iterator[None]:
    """Put the points in the place of a layer's output, while inside; the module must be this thread's own.

    Raises
    ------
    TypeError, ValueError
        The layer's output is not a tensor, is of another shape than the points, or is not used exactly once.
    """
    calls = 0

    def put(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        nonlocal calls
        calls += 1
        whole = _tensor(output, layer)
        if whole.shape != points.shape:
            raise ValueError(
                f"layer {layer!r} gives the shape {tuple(whole.shape)}, and the points in its place have "
                f"{tuple(points.shape)}: oracle.layer_output(...) gives the points of an input"
            )
        return points.to(whole.dtype)

    handle = module.get_submodule(layer).register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise ValueError(
            f"layer {layer!r} is called {calls} times in a forward pass, and points can stand for the output "
            "of a layer that is called once"
        )


@contextmanager
def recorded(module: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Give a list that receives a layer's outputs, while inside."""
    outputs: list[Tensor] = []

    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(_tensor(output, layer).detach().clone())

    handle = module.get_submodule(layer).register_forward_hook(record)
    try:
        yield outputs
    finally:
        handle.remove()


def _tensor(output: Any, layer: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"layer {layer!r} returns a {type(output).__name__}: choose a layer that returns one tensor"
        )
    return output
