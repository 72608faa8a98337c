from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.kernels import Kernel, Law
from mollikit.kernels.law import Draws
from mollikit.layout import Layout
from mollikit.pointsets import Normals, PointSet, Uniforms


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One input with its kernels and frozen widths: it turns point sets into the rows a model is asked about.

    Coordinates of width zero do not move, and the sampler does not see them.

    Attributes
    ----------
    base, widths : ndarray
        (D,), in the dtype of the input.
    moving : ndarray or None
        Indices of the coordinates that move; None where all of them do.
    shape : tuple of int
        What the sampler is asked for: the input's own grid where there is one input and all of it moves.
    draws : tuple of (Draws, slice)
        Each law around this input, with its stretch of the moving coordinates.
    """

    layout: Layout
    base: NDArray[Any]
    widths: NDArray[Any]
    moving: NDArray[np.intp] | None
    shape: tuple[int, ...]
    draws: tuple[tuple[Draws, slice], ...]

    @classmethod
    def of(cls, inputs: Any, layout: Layout, kernels: Law | Mapping[str, Law] | None) -> Perturbation:
        """Resolve the scales on the clean input.

        Raises
        ------
        TypeError
            If what is given is no kernel.
        ValueError
            If a kernel is given for an input that is not there, or a scale does not suit its input.
        """
        if isinstance(kernels, Mapping):
            known = {leaf.name for leaf in layout.leaves}
            if unknown := set(kernels) - known:
                named = (
                    "has one unnamed input: give one kernel"
                    if known == {None}
                    else f"has the inputs {sorted(map(str, known))}"
                )
                raise ValueError(f"kernels are given for {sorted(unknown)}, but this model {named}")
        base, start = layout.flatten(inputs), 0
        widths, stretches = np.zeros(layout.size), []
        for leaf in layout.leaves:
            kernel = kernels.get(leaf.name or "") if isinstance(kernels, Mapping) else kernels
            if kernel is None:
                continue
            if not isinstance(kernel, Law):
                raise TypeError(
                    f"{leaf.label} is to be smoothed by {kernel!r}, which is not a kernel: "
                    "give Gaussian(0.1), Gaussian(OfRange(0.15)) or another"
                )
            values = base[leaf.start : leaf.stop].reshape(leaf.shape)
            try:
                widths[leaf.start : leaf.stop] = kernel.widths(values).ravel()
                draws = kernel.at(values)
            except ValueError as error:
                raise ValueError(f"{leaf.label}: {error}") from error
            count = int(np.count_nonzero(widths[leaf.start : leaf.stop]))
            stretches.append((draws, slice(start, start + count)))
            start += count
        if not stretches:
            raise ValueError("no kernel is given for any input, so nothing would be smoothed")
        with np.errstate(over="ignore"):
            rounded = widths.astype(base.dtype)
        lost = widths[~np.isfinite(rounded) | ((rounded == 0) & (widths > 0))]
        if lost.size:
            raise ValueError(
                f"a width of {lost[0]:g} is out of the range of {base.dtype}; "
                "cast the input to a wider dtype, or change the scale"
            )
        all_move = start == layout.size
        whole = all_move and len(layout.leaves) == 1
        return cls(
            layout,
            base,
            rounded,
            None if all_move else np.flatnonzero(widths),
            layout.leaves[0].shape or (1,) if whole else (start,),
            tuple(stretches),
        )

    @classmethod
    def still(cls, inputs: Any, layout: Layout) -> Perturbation:
        """Return the perturbation that moves nothing, for a model whose weights alone are smoothed."""
        base = layout.flatten(inputs)
        return cls(layout, base, np.zeros_like(base), np.zeros(0, np.intp), (0,), ())

    @property
    def dimension(self) -> int:
        """The number of coordinates that move."""
        return int(self.draws[-1][1].stop) if self.draws else 0

    @property
    def kernels(self) -> tuple[tuple[Kernel, slice], ...]:
        """The kernels themselves, each with its stretch: for estimators that need more than their points.

        Raises
        ------
        TypeError
            If an input is perturbed by another law.
        """
        return tuple((_kernel(draws), part) for draws, part in self.draws)

    @property
    def effective_share(self) -> float:
        """Effective sample size over the number of points: below 1 under importance weights."""
        return float(np.prod([draws.effective_share for draws, _ in self.draws]))

    @property
    def view(self) -> type[Normals] | type[Uniforms]:
        """The view of a point set from which these kernels work."""
        return Normals if any(draws.view is Normals for draws, _ in self.draws) else Uniforms

    def rows(self, points: PointSet, count: int) -> NDArray[Any]:
        """Perturbed inputs, (count, D), one for each point; rows beyond the points are the clean input."""
        return self.moved(self.steps(points), count)

    def steps(self, points: PointSet) -> NDArray[Any]:
        """Draws of the kernels' standard forms, (m, dimension), one for each point: the caller's own."""
        kind, values = type(points), points.values.reshape(-1, self.dimension)
        if len(self.draws) == 1:
            steps = self.draws[0][0].displacements(kind(values))
        else:
            steps = np.concatenate(
                [draws.displacements(kind(values[:, part])) for draws, part in self.draws], axis=1
            )
        return steps

    def weights(self, steps: NDArray[Any]) -> NDArray[np.float64] | None:
        """Importance weights of steps (m,), the product over the inputs; None where each is 1."""
        found = [draws.weights(steps[:, part]) for draws, part in self.draws]
        weighing = [weights for weights in found if weights is not None]
        return np.asarray(np.prod(weighing, axis=0)) if weighing else None

    def moved(self, steps: NDArray[Any], count: int) -> NDArray[Any]:
        """Inputs (count, D) moved by these steps times the widths; it may use the steps' own memory."""
        steps = steps.astype(self.base.dtype, copy=False)
        if self.moving is None and len(steps) == count:
            steps *= self.widths
            steps += self.base
            return steps
        rows = np.tile(self.base, (count, 1))
        if self.moving is None:
            rows[: len(steps)] += steps * self.widths
        else:
            rows[: len(steps), self.moving] += steps * self.widths[self.moving]
        return rows


def _kernel(draws: Draws) -> Kernel:
    if not isinstance(draws, Kernel):
        raise TypeError(
            f"{type(draws).__name__} has no kernel's score and symmetry, which this estimator needs: "
            "give the kernel itself, or use Pathwise"
        )
    return draws
