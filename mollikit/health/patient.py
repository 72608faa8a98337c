from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.layout import Layout
from mollikit.oracles import Array, GradientOracle, ValueOracle
from mollikit.testing.tolerances import machine_epsilon

# Points beside the input lie this share of its range away: near enough to be like it, far enough to differ.
_AROUND = 0.02


@dataclass(frozen=True, eq=False)
class Patient:
    """A model at a few points: the input itself, and others around it, with what it answered.

    Attributes
    ----------
    oracle : GradientOracle
    layout : Layout
    rows : ndarray
        (m, D), the clean input first.
    held : mapping of ndarray
        By name, (m, *shape).
    values : ndarray or None
        (m,)
    gradients : ndarray
        (m, D)
    dtypes : tuple of dtype
        Of the answers.
    """

    oracle: GradientOracle
    layout: Layout
    rows: Array
    held: Mapping[str, Array]
    values: Array | None
    gradients: Array
    dtypes: tuple[np.dtype[Any], ...]

    @classmethod
    def of(
        cls, oracle: GradientOracle, inputs: Any, held: Mapping[str, Any], count: int, seed: int
    ) -> Patient:
        """Ask the model about an input and points around it."""
        layout = Layout.of(inputs)
        base = layout.flatten(inputs)
        steps = np.random.default_rng(seed).standard_normal((count, layout.size))
        steps[0] = 0
        for leaf in layout.leaves:
            part = base[leaf.start : leaf.stop]
            steps[:, leaf.start : leaf.stop] *= _AROUND * (np.ptp(part) or np.abs(part).max() or 1.0)
        rows = (base + steps).astype(base.dtype)
        repeated = {
            name: np.broadcast_to(np.asarray(v), (count, *np.shape(v))).copy() for name, v in held.items()
        }
        values, answer = oracle.value_and_gradient(layout.points(rows), **repeated)
        gradients = layout.gradients(answer, count)
        answers = answer.values() if isinstance(answer, Mapping) else [answer]
        dtypes = [np.asarray(part).dtype for part in (*answers, *([] if values is None else [values]))]
        return cls(
            oracle,
            layout,
            rows,
            repeated,
            None if values is None else np.asarray(values),
            gradients,
            tuple(dtypes),
        )

    @property
    def precision(self) -> np.dtype[Any]:
        """The coarsest dtype among the points and the answers: what differences are judged by."""
        return max((self.layout.dtype, *self.dtypes), key=machine_epsilon)

    def ask(self, some: slice) -> tuple[Array | None, Array]:
        """Values and gradients (k, D) of some of the points, asked for together."""
        rows = self.rows[some]
        held = {name: values[some] for name, values in self.held.items()}
        values, answer = self.oracle.value_and_gradient(self.layout.points(rows), **held)
        return None if values is None else np.asarray(values), self.layout.gradients(answer, len(rows))

    def value(self, points: Any) -> Array:
        """Values (m,) at other points with the same held arrays."""
        if isinstance(self.oracle, ValueOracle):
            return np.asarray(self.oracle.value(points, **self.held))
        values, _ = self.oracle.value_and_gradient(points, **self.held)
        assert values is not None
        return np.asarray(values)
