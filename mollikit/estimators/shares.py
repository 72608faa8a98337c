from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mollikit.samplers import Antithetic, Independent, Recentred, RotatedSobol, Sampler, Sobol


@dataclass(frozen=True)
class Shares:
    """The shares of the gradient's variance that are linear, and that are odd, in the normals of a point.

    Attributes
    ----------
    linear, odd : float
        From 0 to 1; the odd share holds the linear one.
    linear_error, odd_error : float
        Standard errors, by the jackknife over groups.
    """

    linear: float
    odd: float
    linear_error: float
    odd_error: float

    @classmethod
    def of(cls, gradients: NDArray[np.float64]) -> Shares:
        """Shares from groups of h recentred points and their reflections, (groups, 2 h, coordinates).

        The odd and the even part at a point are half the difference and half the sum of the gradients at
        t and -t, and their variances add up to the whole. In a group of h recentred points the linear
        part sums to zero, while a part of degree three keeps 1 - 1 / (h - 1)^2 of its variance in the
        sum: what the sum of the odd parts shows, over that, is the part that is odd and not linear.
        """
        groups, size, _ = gradients.shape
        h = size // 2
        plus, minus = gradients[:, :h], gradients[:, h:]
        odd, even = (plus - minus) / 2, (plus + minus) / 2
        means = even.mean(axis=1)
        v_odd = np.square(odd).sum(axis=(1, 2)) / h
        v_bent = np.square(odd.sum(axis=1)).sum(axis=1) / h / (1 - 1 / (h - 1) ** 2)
        within = np.square(even - means[:, None]).sum(axis=(1, 2)) / h

        def shares(kept: NDArray[np.intp]) -> NDArray[np.float64]:
            v_even = within[kept].mean() + means[kept].var(axis=0, ddof=1).sum()
            total = v_odd[kept].mean() + v_even
            if total == 0:
                return np.zeros(2)
            bent = min(v_bent[kept].mean(), v_odd[kept].mean())
            return np.array([(v_odd[kept].mean() - bent) / total, v_odd[kept].mean() / total])

        everything = np.arange(groups)
        linear, odd_share = shares(everything)
        left = np.array([shares(np.delete(everything, k)) for k in everything])
        errors = np.sqrt((groups - 1) * left.var(axis=0))
        return cls(float(linear), float(odd_share), float(errors[0]), float(errors[1]))

    def gain(self, sampler: Sampler) -> float:
        """Variance factor over independent points that the shares foretell.

        Antithetic pairs leave the even part, twice: 1 / (2 (1 - O)). Groups of g recentred points leave what
        is not linear, of which the even part, taken as quadratic, grows by 1 / (g - 1). Of nets it is said
        what they gain at least, where they are good at all: 1 / (1 - L).
        """
        even, bent = max(1 - self.odd, 0.0), max(self.odd - self.linear, 0.0)
        match sampler:
            case Independent():
                left = 1.0
            case Antithetic():
                left = 2 * even
            case Recentred(points=g):
                left = even * (1 + 1 / (g - 1)) + bent * (1 - 1 / (g - 1) ** 2)
            case Sobol() | RotatedSobol():
                left = even + bent
            case _:
                raise TypeError(f"the shares foretell nothing of {sampler}")
        return float(1 / left) if left > 0 else float("inf")
