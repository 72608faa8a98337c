"""Functions whose smoothed gradient is known in closed form, as oracles, and the schemes to try on them.

Each has ``smoothed_gradient(kernel, x, widths)``: the truth at x under a product kernel of these widths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import mollikit as mk

KERNELS = (mk.Gaussian, mk.Uniform, mk.Logistic, mk.Laplace)
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(), mk.LatinHypercube(), mk.Sobol())


@dataclass(frozen=True)
class PlaneWaves:
    """f(x) = sum_k cos(w_k . x); E f(x + s t) multiplies wave k by prod_j phi(s_j w_kj)."""

    frequencies: np.ndarray

    def value_and_gradient(self, points):
        phases = points @ self.frequencies.T
        return np.cos(phases).sum(1), -np.sin(phases) @ self.frequencies

    def smoothed_gradient(self, kernel, x, widths):
        damping = kernel.characteristic_function(self.frequencies * widths).prod(1)
        return -(np.sin(self.frequencies @ x) * damping) @ self.frequencies

    def smoothed_value(self, kernel, x, widths):
        damping = kernel.characteristic_function(self.frequencies * widths).prod(1)
        return np.cos(self.frequencies @ x) @ damping


@dataclass(frozen=True)
class Linear:
    """f(x) = w . x."""

    weights: np.ndarray

    def value_and_gradient(self, points):
        return points @ self.weights, np.broadcast_to(self.weights.astype(points.dtype), points.shape)

    def smoothed_gradient(self, kernel, x, widths):
        return self.weights


@dataclass(frozen=True)
class Quadratic:
    """f(x) = x . A x / 2 for a symmetric A."""

    matrix: np.ndarray

    def value_and_gradient(self, points):
        gradients = points @ self.matrix.astype(points.dtype)
        return (points * gradients).sum(1) / 2, gradients

    def smoothed_gradient(self, kernel, x, widths):
        return self.matrix @ x


@dataclass(frozen=True)
class Cubic:
    """f(x) = sum x^3, whose gradient 3 x^2 gains 3 s^2 Var(t)."""

    def value_and_gradient(self, points):
        return (points**3).reshape(len(points), -1).sum(1), 3 * points**2

    def smoothed_gradient(self, kernel, x, widths):
        return 3 * (x**2 + widths**2 * kernel.variance)


@dataclass(repr=False)
class Recording:
    """An oracle that keeps a copy of the batches it was asked about."""

    oracle: object
    batches: list = field(default_factory=list)

    def __repr__(self):
        return repr(self.oracle)

    def value_and_gradient(self, points, **held):
        copied = points.copy() if isinstance(points, np.ndarray) else dict(points)
        self.batches.append((copied, held))
        return self.oracle.value_and_gradient(points, **held)


def waves(n_waves=3, dimension=6, seed=1):
    return PlaneWaves(np.random.default_rng(seed).standard_normal((n_waves, dimension)))
