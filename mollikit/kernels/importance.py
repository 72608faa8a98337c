from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.kernels.base import Kernel
from mollikit.kernels.law import Floats, Law
from mollikit.kernels.measured import integral
from mollikit.pointsets import Normals, PointSet, Uniforms


@dataclass(frozen=True, eq=False)
class Importance(Law):
    """The smoothed gradient under one kernel from points of another, with exact weights K(t) / p(t).

    The weights are products over the coordinates and are not divided by their sum, so that the estimate
    is unbiased. Their spread multiplies from coordinate to coordinate: of n points as many count as
    n / prod_j int K_j^2 / p_j, which is known before the model is called, is recorded in the Estimate's
    provenance as ``effective_share``, and falls so fast with the dimension that a share below
    ``least_share`` is refused.

    Source: Owen 2013, "Monte Carlo theory, methods and examples", chapter 9.

    Parameters
    ----------
    kernel : Kernel
        The kernel K of the estimand, with its scale.
    proposal : Kernel
        The density p that the points have, with a scale of its own. It must cover the kernel's support.
    least_share : float
        The effective share of the points below which the weights have collapsed, in (0, 1].

    Raises
    ------
    ValueError
        When the proposal does not cover the kernel, or the weights collapse or have no variance.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Cubic:
    ...     def value_and_gradient(self, points): return (points**3).sum(-1), 3 * points**2
    >>> wide = mk.Importance(mk.Gaussian(0.5), proposal=mk.Logistic(0.4))
    >>> estimate = mk.Pathwise(wide).estimate(Cubic(), np.ones(2), budget=mk.Evaluations(4096), rng=0)
    >>> low, high = estimate.interval(0.99)      # the truth is 3 (1 + 0.5^2)
    >>> bool(((low < 3.75) & (3.75 < high)).all()), round(estimate.provenance["effective_share"], 3)
    (True, 0.799)
    """

    kernel: Kernel
    proposal: Kernel
    least_share: float = 0.1

    def __post_init__(self) -> None:
        for kernel in (self.kernel, self.proposal):
            if not isinstance(kernel, Kernel):
                raise TypeError(f"Importance: {kernel!r} is not a kernel")
        if not 0 < self.least_share <= 1:
            raise ValueError(f"Importance: least_share={self.least_share!r} must be in (0, 1]")

    def widths(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        return self.proposal.widths(inputs)

    def at(self, inputs: NDArray[Any]) -> WeightedDraws:
        """Return the proposal around one input, with its weights.

        Raises
        ------
        ValueError
            When the proposal does not cover the kernel, or the weights collapse.
        """
        wanted, drawn = self.kernel.widths(inputs), self.widths(inputs)
        moves = drawn > 0
        if ((wanted > 0) != moves).any():
            raise ValueError(f"{self!r}: kernel and proposal must move the same coordinates")
        # As the points will see them, in the input's own precision.
        ratios = (drawn.astype(inputs.dtype)[moves] / wanted[moves]).astype(np.float64)
        reach, covered = self.kernel.support[1], self.proposal.support[1] * float(ratios.min())
        if reach > covered:
            raise ValueError(
                f"{self!r}: the proposal ends at {covered:g} of the kernel's scale, the kernel at {reach:g}; "
                "widen the proposal until it covers the kernel's support"
            )
        distinct, counts = np.unique(ratios, return_counts=True)
        logs = [np.log(self._mean_square(float(ratio))) for ratio in distinct]
        share = float(np.exp(-(counts * logs).sum()))
        if not share >= self.least_share:
            raise ValueError(
                f"{self!r}: the weights collapse: in {ratios.size} coordinates {share:.2g} of the points "
                f"count, less than least_share={self.least_share:g}. Draw from the kernel itself, or from a "
                "proposal closer to it"
            )
        return WeightedDraws(self.kernel, self.proposal, ratios, share)

    def _mean_square(self, ratio: float) -> float:
        """E[w^2] of one coordinate, int (r K(r t))^2 / p(t) dt, by quadrature."""

        def integrand(t: float) -> float:
            wanted = ratio * float(self.kernel.density(ratio * t))
            return wanted * (wanted / float(self.proposal.density(t))) if wanted > 0 else 0.0

        end = min(self.kernel.support[1] / ratio, self.proposal.support[1])
        try:
            half = integral(integrand, 0.0, end, float(self.proposal.inverse_cdf(0.75)))
        except ZeroDivisionError:
            half = None
        if half is None or not half.converged:
            raise ValueError(
                f"{self!r}: the weights have no variance: the proposal's tail is lighter than the "
                "kernel's; widen it, or take one of heavier tails"
            )
        return 2 * half.value


@dataclass(frozen=True, eq=False)
class WeightedDraws:
    """Draws of the proposal and their weights, for the ratios of its widths to the kernel's."""

    kernel: Kernel
    proposal: Kernel
    ratios: NDArray[np.float64]
    effective_share: float

    @property
    def view(self) -> type[Normals] | type[Uniforms]:
        return self.proposal.view

    def displacements(self, points: PointSet) -> Floats:
        return self.proposal.displacements(points)

    def weights(self, displacements: Floats) -> NDArray[np.float64]:
        t = displacements.astype(np.float64)
        with np.errstate(divide="ignore"):
            logs = np.log(self.ratios * self.kernel.density(self.ratios * t)) - np.log(
                self.proposal.density(t)
            )
        return np.asarray(np.exp(logs.sum(axis=-1)))
