from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from mollikit.kernels.law import Floats, Law
from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.scales import Scale, Times, as_scale

_GAUSSIAN_QUARTILE = float(ndtri(0.75))


@dataclass(frozen=True, eq=False)
class Kernel(Law):
    """An even probability density on the line, used for each coordinate, with a scale.

    The methods speak of the *standard form* K (scale 1), which is scipy's. At scale s the density is
    K(t / s) / s, and the smoothed function is f_K(x) = E[f(x + s t)] with t ~ K in every coordinate.

    Parameters
    ----------
    scale : float, array or Scale
        How wide: in the input's units, per coordinate where it is an array, or a rule such as
        ``OfRange(0.15)``. A width of zero holds a coordinate fixed.

    Attributes
    ----------
    view : type
        The view of a point set, `Normals` or `Uniforms`, from which this kernel's points come cheapest.
    """

    scale: Scale | ArrayLike

    view: ClassVar[type[Normals] | type[Uniforms]] = Uniforms
    effective_share: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", as_scale(self.scale))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scale!r})"

    @property
    @abstractmethod
    def variance(self) -> float:
        """Variance of the standard form; infinite where it does not exist."""

    @property
    def support(self) -> tuple[float, float]:
        """Support of the standard form."""
        return (-np.inf, np.inf)

    @property
    @abstractmethod
    def fisher_information(self) -> float:
        """E[score^2] of the standard form; infinite where the density jumps or ends in a kink."""

    @property
    def smoothness(self) -> float | None:
        """The k of the class C^k of K on the line: infinite, or -1 where it jumps; None if not known."""
        return None

    @property
    def moment_limit(self) -> float | None:
        """Order below which every absolute moment of K exists; None if not known."""
        return np.inf if np.isfinite(self.support[1]) else None

    @abstractmethod
    def density(self, t: Any) -> Floats:
        """K(t), elementwise."""

    @abstractmethod
    def cdf(self, t: Any) -> Floats:
        """Mass below t, elementwise: the step function smoothed by K."""

    @abstractmethod
    def inverse_cdf(self, u: Any) -> Floats:
        """Quantile at u in the open unit interval, elementwise."""

    @abstractmethod
    def score(self, t: Any) -> Floats:
        """d/dt log K(t) inside the support, elementwise."""

    @abstractmethod
    def characteristic_function(self, omega: Any) -> Floats:
        """E[exp(i omega t)], elementwise; real, since the kernel is even."""

    def widths(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Resolve the scale on one input: widths of the input's shape, in its units."""
        return as_scale(self.scale).resolve(inputs, self)

    def at(self, inputs: NDArray[Any]) -> Self:
        """Return the kernel itself, whose standard form is the same around every input."""
        return self

    def weights(self, displacements: Floats) -> None:
        """None: the points have the kernel's own law."""

    def matched(self, by: Literal["std", "iqr"]) -> Self:
        """Return the kernel whose scale is its standard deviation, or that of the Gaussian of its quartiles.

        Kernels of one nominal scale differ in width; matched ones can be compared.

        Raises
        ------
        ValueError
            If the standard deviation is asked for and does not exist.
        """
        if by == "std":
            width = np.sqrt(self.variance)
            if not np.isfinite(width):
                raise ValueError(
                    f"{self} has no standard deviation; match it by its quartiles: matched('iqr')"
                )
        else:
            width = float(self.inverse_cdf(0.75)) / _GAUSSIAN_QUARTILE
        return replace(self, scale=Times(as_scale(self.scale), float(1 / width)))

    def displacements(self, points: PointSet) -> Floats:
        """Turn points into draws of the standard form, by the inverse CDF.

        A normal z becomes sign(z) |Q(Phi(-|z|))|: the lower tail alone is used, where both Phi and
        the quantile function keep their relative accuracy, and z -> -z stays an exact reflection.
        """
        if isinstance(points, Uniforms):
            return self.inverse_cdf(points.values)
        z = points.values
        return np.asarray(np.copysign(self.inverse_cdf(ndtr(-np.abs(z))), z))
