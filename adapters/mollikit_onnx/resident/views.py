from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.views import ChannelSum, Composed, Input, Pool
from mollikit_onnx.graphs.tensor import Tensor

# Gradients (m, *shape) in a graph, or several by input name.
Gradients = Tensor | Mapping[str, Tensor]


def known(view: Any) -> bool:
    """Whether a view can be taken inside a graph."""
    if isinstance(view, Composed):
        return known(view.first) and known(view.second)
    return isinstance(view, Input | ChannelSum | Pool)


@singledispatch
def seen(view: Any, gradients: Any) -> Tensor:
    """Return a view that is `known` of gradients (m, *shape)."""
    raise NotImplementedError(f"{view!r} works on arrays")


@seen.register
def _(view: Composed, gradients: Any) -> Tensor:
    return seen(view.second, seen(view.first, gradients))


@seen.register
def _(view: Input, gradients: Any) -> Tensor:
    found: Tensor = gradients[view.name]
    return found


@seen.register
def _(view: ChannelSum, gradients: Any) -> Tensor:
    axis = view.axis + 1 if view.axis >= 0 else view.axis
    summed: Tensor = gradients.op("ReduceSum", [axis], keepdims=0)
    return summed


@seen.register
def _(view: Pool, gradients: Any) -> Tensor:
    # As products, whose windows at the edges are whatever the matrices say.
    height, width = (_averages(size, view.size) for size in gradients.shape[-2:])
    columns = gradients.op("MatMul", width.T.copy())
    pooled: Tensor = columns.graph.op("MatMul", height, columns)
    return pooled


def _averages(length: int, size: int) -> NDArray[np.float64]:
    """Return the matrix (windows, length) of the means over windows; the last may be cut by the edge."""
    windows = np.arange(length) // size == np.arange(-(-length // size))[:, None]
    means: NDArray[np.float64] = windows / windows.sum(axis=1, keepdims=True)
    return means
