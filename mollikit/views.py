from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A view takes gradients (m, *shape), or a mapping of them, to arrays (m, *view_shape), linearly.
ViewLike = Callable[[Any], NDArray[Any]]


class View(ABC):
    """A linear functional of the gradient that a person looks at.

    Pixels of a gradient are correlated, so the error bar of a sum or a mean of them cannot be had from
    theirs: a view is applied to each group's mean and streams moments of its own. Any callable that is
    linear and takes gradients (m, *shape) to (m, *view_shape) is a view too.
    """

    @abstractmethod
    def __call__(self, gradients: Any) -> NDArray[Any]:
        """Apply it to a batch of gradients (m, *shape)."""

    def then(self, other: View) -> View:
        """Return the view that applies this one first and the other to its result."""
        return Composed(self, other)


@dataclass(frozen=True)
class Composed(View):
    """One view after another."""

    first: View
    second: View

    def __call__(self, gradients: Any) -> NDArray[Any]:
        return self.second(self.first(gradients))


@dataclass(frozen=True)
class Input(View):
    """The gradient of one named input, for models of several.

    Examples
    --------
    >>> import mollikit as mk
    >>> view = mk.Input("image").then(mk.ChannelSum(axis=0))
    """

    name: str

    def __call__(self, gradients: Any) -> NDArray[Any]:
        if not isinstance(gradients, Mapping) or self.name not in gradients:
            names = sorted(gradients) if isinstance(gradients, Mapping) else "one unnamed input"
            raise ValueError(f"Input({self.name!r}): there is no such input; this model has {names}")
        return np.asarray(gradients[self.name])


@dataclass(frozen=True)
class ChannelSum(View):
    """The sum over one axis of the input, by default its first: the channels of an image (C, H, W).

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> mk.ChannelSum(axis=0)(np.ones((1, 3, 8, 8))).shape
    (1, 8, 8)
    """

    axis: int = 0

    def __call__(self, gradients: Any) -> NDArray[Any]:
        if isinstance(gradients, Mapping):
            raise ValueError(
                f"{self}: this model has the inputs {sorted(gradients)}; begin with Input(name).then(...)"
            )
        axis = self.axis + 1 if self.axis >= 0 else self.axis
        if not -gradients.ndim < axis < gradients.ndim:
            raise ValueError(f"{self}: an input of shape {gradients.shape[1:]} has no such axis")
        return np.asarray(gradients.sum(axis=axis))


@dataclass(frozen=True)
class Pool(View):
    """The mean over size x size windows of the last two axes; a window cut by an edge counts what it holds.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> mk.ChannelSum(axis=0).then(mk.Pool(8))(np.ones((1, 3, 20, 16)))[0, 0]
    array([3., 3.])
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Pool({self.size}): the window has at least one pixel")

    def __call__(self, gradients: Any) -> NDArray[Any]:
        if isinstance(gradients, Mapping) or gradients.ndim < 3:
            raise ValueError(f"{self} pools the last two axes of one input of at least two axes")
        for axis in (-2, -1):
            length = gradients.shape[axis]
            starts = np.arange(0, length, self.size)
            counts = np.minimum(starts + self.size, length) - starts
            counts = counts[:, None] if axis == -2 else counts
            gradients = np.add.reduceat(gradients, starts, axis=axis) / counts
        return np.asarray(gradients)


def check_linear(name: str, view: ViewLike, form: Callable[[NDArray[Any]], Any], size: int) -> None:
    """Refuse a view that is not linear, or not row by row: tried on random batches of two gradients.

    It must give v(a - 2 b) = v(a) - 2 v(b), and the same for a row whether alone or in a batch.

    Parameters
    ----------
    name : str
    view : View or callable
    form : callable
        From rows (m, size) to gradients in the form that the model's have.
    size : int

    Raises
    ------
    TypeError, ValueError
        Naming the view.
    """
    if not callable(view):
        raise TypeError(
            f"view {name!r} is {view!r}, which is no view: give Pool(8), ChannelSum(0) or a linear callable"
        )
    batch, other = np.random.default_rng(0).standard_normal((2, 2, size))
    a, b, c, alone = (
        np.asarray(view(form(rows)), dtype=np.float64)
        for rows in (batch, other, batch - 2 * other, batch[:1])
    )
    tolerance = 1e-9 * max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)) + 1e-300
    by_row = a.shape[:1] == (2,) and alone.shape == (1, *a.shape[1:])
    if not (by_row and np.allclose(alone[0], a[0], rtol=0, atol=tolerance)):
        raise ValueError(
            f"view {name!r} makes an array of shape {a.shape} of 2 gradients: it must keep their first axis, "
            "which counts gradients, and treat each by itself; the input's own axes begin at 1"
        )
    if not np.allclose(c, a - 2 * b, rtol=0, atol=tolerance):
        raise ValueError(
            f"view {name!r} is not linear, so the mean of its values is not its value of the mean; "
            "take absolute values, maxima or norms of the finished estimate instead"
        )
