"""Models with weights, whose gradient smoothed in weights and inputs is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import mollikit as mk
from tests.core.closed_forms import PlaneWaves


@dataclass(frozen=True)
class Weighted:
    """An oracle whose weights can be replaced; subclasses compute with ``self.weights``."""

    weights: Mapping[str, np.ndarray]

    def __repr__(self):
        return type(self).__name__

    def reweighted(self, weights):
        for name, values in weights.items():
            if name not in self.weights or values.shape != self.weights[name].shape:
                raise ValueError(f"no weight {name!r} of shape {values.shape}")
        return type(self)({**self.weights, **weights})


class Cubes(Weighted):
    """f(x) = sum_j (a_j x_j + b_j)^3 / 3, of gradient a_j (a_j x_j + b_j)^2."""

    def value_and_gradient(self, points):
        a, b = self.weights["layer.weight"], self.weights["layer.bias"]
        inner = points * a + b
        return (inner**3).sum(1) / 3, a * inner**2


def smoothed_cubes(x, a, b, *, inputs=0.0, weights=0.0, biases=0.0):
    """Smooth the gradient of Cubes, for variances of x_j, a_j and b_j under even laws without fourth moments.

    a (a x + b)^2 = a^3 x^2 + 2 a^2 b x + a b^2, and E a^3 = a^3 + 3 a v, E a^2 = a^2 + v.
    """
    return (a**3 + 3 * a * weights) * (x**2 + inputs) + 2 * (a**2 + weights) * b * x + a * (b**2 + biases)


class Product(Weighted):
    """f(x) = |x W|^2 / 2, whose gradient x W W' becomes x (W W' + diag(sum_k Var W_jk)) over the weights."""

    def value_and_gradient(self, points):
        hidden = points @ self.weights["W"]
        return (hidden**2).sum(1) / 2, hidden @ self.weights["W"].T


def smoothed_product(x, w, variances):
    return x @ (w @ w.T) + x * variances.sum(1)


class Amplitudes(Weighted):
    """f(x) = sum_k c_k cos(w_k . x): smoothing the amplitudes c alone leaves the mean as it is."""

    def value_and_gradient(self, points):
        phases = points @ FREQUENCIES.T
        c = self.weights["amplitudes"]
        return np.cos(phases) @ c, -(c * np.sin(phases)) @ FREQUENCIES


DIMENSION = 8
FREQUENCIES = np.random.default_rng(8).normal(0, 0.5, (12, DIMENSION))
X = np.linspace(-1.5, 1.5, DIMENSION)
KERNEL = mk.Gaussian(0.8)
TRUTH = PlaneWaves(FREQUENCIES).smoothed_gradient(KERNEL, X, np.full(DIMENSION, 0.8))


def amplitudes():
    return Amplitudes({"amplitudes": np.ones(len(FREQUENCIES))})


def product(rows=5, columns=4, seed=0, dtype=np.float64):
    return Product({"W": np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)})


def cubes(dimension=6, seed=0):
    rng = np.random.default_rng(seed)
    return Cubes(
        {"layer.weight": rng.uniform(0.5, 1.5, dimension), "layer.bias": rng.uniform(-1, 1, dimension)}
    )
