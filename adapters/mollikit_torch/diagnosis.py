from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def refuse_not_finite(gradients: dict[str, Tensor], where: Callable[[], str]) -> None:
    """Raise FloatingPointError where a gradient is not finite, naming rows and what ``where`` finds."""
    for name, gradient in gradients.items():
        # A sum is finite only where every term is, and costs a fraction of looking at each.
        if gradient.sum().isfinite():
            continue
        finite = gradient.isfinite().flatten(1).all(dim=1)
        rows = torch.nonzero(~finite).flatten().tolist()
        if rows:
            of = f" with respect to {name!r}" if name else ""
            raise FloatingPointError(
                f"the model's gradient{of} is NaN or infinite at {len(rows)} of {len(gradient)} points, the "
                f"first of them row {rows[0]}{where()}: the model is not differentiable there or overflows; "
                "a smaller scale or a wider dtype may help"
            )


class Trace:
    """Which layer was the first to give something that is not finite, forward and then backward."""

    def __init__(self) -> None:
        self._outputs: list[str] = []
        self._gradients: list[str] = []
        self._behind: list[str] = []
        self._sent: dict[str, bool] = {}

    def __str__(self) -> str:
        if self._outputs:
            return f" (the output of layer {self._outputs[0]!r} is not finite)"
        if self._gradients:
            return f" (it arises in layer {self._gradients[0]!r})"
        return f" (it arises behind the output of layer {self._behind[0]!r})" if self._behind else ""

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Watch one forward and backward pass; the module must be this thread's own."""
        handles: list[RemovableHandle] = []
        for name, layer in module.named_modules():
            if name and not any(True for _ in layer.children()):
                handles.append(layer.register_forward_pre_hook(self._before(name)))
                handles.append(layer.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Callable[..., None]:
        def watch(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            for tensor in inputs:
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    _on_gradient(tensor, lambda gradient: self._received(name, gradient))

        return watch

    def _after(self, name: str) -> Callable[..., None]:
        def watch(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                if not output.isfinite().all():
                    self._outputs.append(name)
                if output.requires_grad:
                    _on_gradient(output, lambda gradient: self._was_sent(name, gradient))

        return watch

    def _was_sent(self, name: str, gradient: Tensor) -> None:
        self._sent[name] = bool(gradient.isfinite().all())
        if not self._sent[name]:
            self._behind.append(name)

    def _received(self, name: str, gradient: Tensor) -> None:
        # The culprit was sent a finite gradient and passed on one that is not.
        if self._sent.get(name, False) and not gradient.isfinite().all():
            self._gradients.append(name)


def _on_gradient(tensor: Tensor, see: Callable[[Tensor], None]) -> None:
    tensor.register_hook(see)  # type: ignore[no-untyped-call]
