from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from torch import Tensor
from torch.nn.functional import avg_pool2d

from mollikit.views import ChannelSum, Composed, Input, Pool, ViewLike


def on_device(name: str, view: ViewLike) -> Callable[[Any], Tensor]:
    """Return a view as a function of tensors (m, *shape), or of a mapping of them.

    Raises
    ------
    ValueError
        It is one that works on arrays alone.
    """
    found = _as_tensors(view)
    if found is None:
        raise ValueError(
            f"view {name!r} works on arrays, and the gradients stay on the device: compose it of Input, "
            "ChannelSum and Pool, or let the host draw: TorchOracle(..., resident=False)"
        )
    return found


@singledispatch
def _as_tensors(view: Any) -> Callable[[Any], Tensor] | None:
    return None


@_as_tensors.register
def _(view: Input) -> Callable[[Any], Tensor]:
    return lambda gradients: gradients[view.name]


@_as_tensors.register
def _(view: ChannelSum) -> Callable[[Any], Tensor]:
    axis = view.axis + 1 if view.axis >= 0 else view.axis
    return lambda gradients: gradients.sum(dim=axis)


@_as_tensors.register
def _(view: Pool) -> Callable[[Any], Tensor]:
    def pooled(gradients: Tensor) -> Tensor:
        planes = gradients.reshape(-1, 1, *gradients.shape[-2:])
        # Windows cut by an edge count what they hold: padding is no part of the mean.
        means = avg_pool2d(planes, view.size, ceil_mode=True, count_include_pad=False)
        return means.reshape(*gradients.shape[:-2], *means.shape[-2:])

    return pooled


@_as_tensors.register
def _(view: Composed) -> Callable[[Any], Tensor] | None:
    first, second = _as_tensors(view.first), _as_tensors(view.second)
    if first is None or second is None:
        return None
    return lambda gradients: second(first(gradients))
