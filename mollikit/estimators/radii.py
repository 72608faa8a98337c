from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.kernels import Kernel

_HALVINGS = 80  # of a bracket, down to the last bit of a double


def secant_radii(kernel: Kernel, t: NDArray[Any], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radii of density -2 r K'(r) from draws t ~ K and uniforms v, elementwise: K(r) = v K(t), r >= |t|.

    For a symmetric unimodal K with a scale s, integrating by parts and folding the line,

        d/dx E[f(x + s t)] = int_0^inf -K'(r) (f(x + s r) - f(x - s r)) / s dr
                           = E[ (f(x + s r) - f(x - s r)) / (2 s r) ],      r ~ -2 r K'(r),

    whose mass is 2 int K = 1. Khinchin's theorem says the same: t = r u with u uniform on (-1, 1). So
    given t, the radius has the density -K'(r) / K(|t|) beyond |t|, whose tail is K(r) / K(|t|):
    inverting that tail at v gives r. Where K jumps from a height above v K(t) to zero, r is the place of the
    jump: for the uniform kernel, whose derivative is a mass at its faces, always 1.

    Only the density is needed, and it may have jumps and kinks; the inversion is by bisection.

    Source: Khinchin 1938, "On unimodal distributions"; the slice under the density is that of Neal 2003,
    "Slice sampling".
    """
    low = np.abs(np.asarray(t, dtype=np.float64))
    height = v * kernel.density(low)
    reach = kernel.support[1]
    if np.isfinite(reach):
        high = np.full_like(low, reach)
    else:
        high = np.maximum(low, 1.0)
        while (above := kernel.density(high) >= height).any():
            high = np.where(above, 2 * high, high)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        inside = kernel.density(middle) >= height
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def check_unimodal(kernel: Kernel) -> None:
    """Raise ValueError, naming the kernel, where its density rises away from zero."""
    quantiles = kernel.inverse_cdf(np.linspace(0.5, 1, 513)[:-1])
    heights = kernel.density(np.concatenate([[0.0], quantiles]))
    rises = np.diff(heights) > 1e-9 * heights.max()
    if rises.any():
        raise ValueError(
            f"Secant needs a density that falls away from zero, and that of {kernel} rises near "
            f"{float(quantiles[int(np.argmax(rises))]):.3g} (in units of its scale); use ScoreFunction, "
            "where the density is smooth"
        )
