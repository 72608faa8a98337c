from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.special import ndtri

from mollikit.engine.streams import Key, Rng
from mollikit.layout import Layout
from mollikit.surrogates.orthants import chances_of_largest

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rectified:
    """A sum of maxima of linear forms, each cut at zero: ``sum_w weights[w] max(0, u[w, 1], ..., u[w, k])``.

    Here ``u = offsets + rows (x - base)``. With k = 1 it is a layer of ReLUs, with k = 4 one whose 2 x 2
    windows are pooled.

    Parameters
    ----------
    rows : array or scipy.sparse.csr_array (W k, D)
        The k forms of a window follow each other.
    offsets : array (W k,)
    weights : array (W,)
    """

    rows: Any
    offsets: Array
    weights: Array

    def __post_init__(self) -> None:
        forms, windows = self.rows.shape[0], len(self.weights)
        if self.rows.ndim != 2 or windows == 0 or forms % windows or self.offsets.shape != (forms,):
            raise ValueError(
                f"Rectified: rows of shape {self.rows.shape}, offsets of shape {self.offsets.shape} and "
                f"{windows} weights; each weight has the same number of rows, each row one offset"
            )

    @property
    def size(self) -> int:
        """Forms of a window."""
        return int(self.rows.shape[0]) // len(self.weights)

    @property
    def work(self) -> int:
        """Multiplications by rows that are not zero, for one point."""
        return int(self.rows.nnz if issparse(self.rows) else self.rows.size)  # type: ignore[attr-defined]

    def gradients(self, steps: Array) -> Array:
        """Gradients (D, m) at base + steps (D, m)."""
        u = self.rows @ steps
        u += self.offsets[:, None]
        gates = u > 0
        if self.size > 1:
            # Of equal forms one alone is open: with both the gradient would not be that of the maximum.
            largest = u.reshape(-1, self.size, u.shape[1]).argmax(axis=1)
            gates &= (np.arange(self.size)[:, None] == largest[:, None]).reshape(u.shape)
        signals = gates * np.repeat(self.weights, self.size)[:, None].astype(u.dtype)
        return np.asarray(self.rows.T @ signals)

    def smoothed(self, widths: Array, nodes: int, rng: np.random.Generator) -> Array:
        """Mean gradient (D,) under independent normal steps of these standard deviations (D,)."""
        k = self.size
        wide = self.rows.astype(np.float64) * widths[None]
        parts = [wide[j::k] for j in range(k)]
        products = np.array([[(a * b).sum(axis=1) for a in parts] for b in parts])
        at = np.zeros((1, 0))
        if k > 1:
            from scipy.stats import qmc

            at = ndtri(np.clip(qmc.Sobol(k - 1, rng=rng).random(nodes), 1e-12, 1 - 1e-12))
        mean = self.offsets.astype(np.float64).reshape(-1, k)
        chances = chances_of_largest(mean, products.transpose(2, 0, 1), at, rng)
        return np.asarray(self.rows.T.astype(np.float64) @ (chances * self.weights[:, None]).ravel())


@dataclass(frozen=True, eq=False, repr=False)
class Ridges:
    """A shallow network whose gradient under Gaussian noise has a known mean: a control variate.

    A sum of rectified linear forms (`Rectified`), about one input. What a deep network's gates do is
    foretold by linear forms of the noise; so its gradient minus that of such a network varies little, and
    the mean of the latter is known: it is what `TwoLevel` takes for ``coarse`` and ``mean``. Any rows,
    offsets and weights that do not depend on the points leave that unbiased.

    Parameters
    ----------
    base : array (*shape), or mapping of arrays by input name
    layers : sequence of Rectified

    Raises
    ------
    ValueError
        If there is no layer, or the rows of one are not of the input's coordinates.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> relu = mk.Rectified(rows=np.array([[1.0, -1.0]]), offsets=np.zeros(1), weights=np.ones(1))
    >>> ridges = mk.Ridges(np.zeros(2), [relu])
    >>> ridges.smoothed(np.full(2, 0.3))  # half of the time the form is positive
    array([ 0.5, -0.5])
    >>> two = mk.TwoLevel(mk.Pathwise(mk.Gaussian(0.3)), ridges, price=0.1, mean=[0.5, -0.5])
    """

    base: ArrayLike | Any
    layers: Sequence[Rectified]

    def __post_init__(self) -> None:
        size = Layout.of(self.base).size
        if not self.layers:
            raise ValueError("Ridges: there are no layers; give at least one Rectified")
        if wrong := [layer.rows.shape for layer in self.layers if layer.rows.shape[1] != size]:
            raise ValueError(
                f"Ridges: a layer has rows of shape {wrong[0]}, and each row is a form of the input's {size} "
                "coordinates"
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(layer.weights)} x {layer.size}" for layer in self.layers)
        return f"Ridges({sizes})"

    def value_and_gradient(self, points: Any, **held: Any) -> tuple[None, Any]:
        """Gradients of a batch (m, *shape), in its form; values are not computed."""
        layout = Layout.of(self.base)
        rows = np.asarray(next(iter(points.values())) if isinstance(points, Mapping) else points).shape[0]
        steps = np.ascontiguousarray((layout.gradients(points, rows) - layout.flatten(self.base)).T)
        total = sum(layer.gradients(steps) for layer in self.layers)
        return None, layout.points(np.ascontiguousarray(np.asarray(total).T))

    def smoothed(self, widths: ArrayLike | Any, *, nodes: int = 512, rng: Rng = None) -> Any:
        """Mean gradient under independent normal noise of these standard deviations, in the input's form.

        Of single forms it is exact. Windows of several are integrated on a scrambled net of ``nodes``, a
        power of two, drawn from ``rng``: without bias, and with an error that falls about as 1 / nodes.
        """
        layout, key = Layout.of(self.base), Key.of(rng)
        flat = layout.flatten(widths).astype(np.float64)
        total = np.zeros(layout.size)
        for number, layer in enumerate(self.layers):
            total += layer.smoothed(flat, nodes, np.random.default_rng([key.seed, key.item, number]))
        return layout.unflatten(total)
