from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mollikit.oracles import Array, Points
from mollikit.testing.batches import flat, unflat
from mollikit.testing.tolerances import central_step, machine_epsilon


@dataclass(frozen=True, eq=False)
class Differences:
    """Central differences beside what gradients foretell, by direction and row.

    Attributes
    ----------
    slopes : ndarray
        (k, m): the foretold change of the values over the whole step.
    errors : ndarray
        How far the measured change is from it.
    allowances : ndarray
        How far it may be: rounding, and the gap of unequal one-sided differences, as at a kink.
    """

    slopes: Array
    errors: Array
    allowances: Array

    @property
    def agree(self) -> bool:
        """Whether every error is allowed."""
        return bool(np.all(self.errors <= self.allowances))

    @property
    def uncertainty(self) -> float:
        """The allowances relative to the slopes: a check where this is not small has shown nothing."""
        slope = float(np.linalg.norm(self.slopes))
        return float(np.linalg.norm(self.allowances)) / slope if slope else np.inf

    @property
    def excess(self) -> float:
        """What the errors exceed their allowances by, relative to the slopes: the median over all.

        A wrong gradient is wrong nearly everywhere, a kink that hides from the allowance here and there.
        """
        over = np.maximum(self.errors - self.allowances, 0)
        return float(np.median(np.divide(over, np.abs(self.slopes), out=over * 0, where=self.slopes != 0)))


def central_differences(
    value: Callable[[Any], Array],
    gradients: Points,
    points: Points,
    dtype: DTypeLike,
    *,
    directions: int = 4,
    shorter: float = 1.0,
    seed: int = 1,
) -> Differences:
    """Compare gradients with differences of the values, along the gradient mixed with random directions.

    Parameters
    ----------
    value : callable
        From points to values (m,).
    gradients, points : array (m, *shape) or mapping of such arrays
    dtype : dtype
        The coarsest in which the model computes; the step follows from it.
    directions : int
        How many, in each row.
    shorter : float
        By which the step is divided, for a function that bends within the usual one.
    seed : int
        Of the random directions.

    Examples
    --------
    >>> x = np.ones((2, 3))
    >>> central_differences(lambda x: (x**2).sum(-1), 2 * x, x, np.float64).agree
    True
    """
    start, slope = flat(points), flat(gradients)
    center, step = value(points).astype(np.float64), central_step(dtype) / shorter
    rng = np.random.default_rng(seed)
    slopes, errors, allowances = [], [], []
    for _ in range(directions):
        u = _unit(_unit(slope) + _unit(rng.standard_normal(start.shape)))
        reach = step * np.maximum(1.0, np.linalg.norm(start, axis=1, keepdims=True)) * u
        ahead, behind = unflat(start + reach, points), unflat(start - reach, points)
        up, down = value(ahead).astype(np.float64), value(behind).astype(np.float64)
        # The displacements as they were rounded, so that only the rounding of f counts.
        forward = (slope * (flat(ahead) - start)).sum(axis=1)
        backward = (slope * (start - flat(behind))).sum(axis=1)
        noise = 16 * machine_epsilon(dtype) * np.max(np.abs([up, center, down]), axis=0)
        slopes.append(forward + backward)
        errors.append(np.abs((up - down) - (forward + backward)))
        allowances.append(np.abs((up - center) - (center - down)) + step * np.abs(up - down) + noise)
    return Differences(np.array(slopes), np.array(errors), np.array(allowances))


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
