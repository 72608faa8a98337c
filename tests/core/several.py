"""A function of several outputs, whose smoothed gradients are known, and which counts its forward passes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mollikit.targets import read_targets
from tests.core.closed_forms import PlaneWaves
from tests.core.weighted_forms import Weighted


@dataclass(frozen=True)
class Bank:
    """Outputs f_j(x) = sum_k cos(w_jk . x), of frequencies (outputs, waves, D)."""

    frequencies: np.ndarray
    forward: list[int] = field(default_factory=list, compare=False)  # rows of each forward pass
    backward: list[int] = field(default_factory=list, compare=False)  # targets of each

    def __repr__(self):
        return f"Bank{self.frequencies.shape}"

    def output(self, target):
        return PlaneWaves(self.frequencies[target])

    def predict(self, points):
        return np.stack(
            [self.output(j).value_and_gradient(points)[0] for j in range(len(self.frequencies))], 1
        )

    def value_and_gradient(self, points, *, target):
        (target,) = set(target.tolist())
        values, (gradient,) = self.values_and_gradients(points, [target])
        return values[0], gradient

    def values_and_gradients(self, points, targets, **held):
        chosen = read_targets(targets, held)
        self.forward.append(len(points))
        self.backward.append(len(chosen))
        answers = [self.output(target).value_and_gradient(points) for target in chosen]
        return np.stack([values for values, _ in answers]), [gradient for _, gradient in answers]


def bank(outputs=4, dimension=6):
    rng = np.random.default_rng(1)
    # Waves grow shorter from output to output, so that the errors differ.
    lengths = np.linspace(0.3, 1.5, outputs)[:, None, None]
    return Bank(lengths * rng.standard_normal((outputs, 5, dimension)))


class Powers(Weighted):
    """Outputs f_j(x) = sum_i (a_i x_i)^(j + 2), with weights a."""

    def value_and_gradient(self, points, *, target):
        values, (gradient,) = self.values_and_gradients(points, target[:1])
        return values[0], gradient

    def values_and_gradients(self, points, targets, **held):
        a, chosen = self.weights["a"], read_targets(targets, held)
        inner = points * a
        values = [(inner ** (j + 2)).sum(1) for j in chosen]
        return np.stack(values), [(j + 2) * a * inner ** (j + 1) for j in chosen]
