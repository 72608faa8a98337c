from __future__ import annotations

from functools import cache
from math import exp
from typing import Any

import numpy as np

from mollikit.kernels.base import Kernel
from mollikit.kernels.density import Density
from mollikit.kernels.law import Floats


class Bump(Kernel):
    """The classical mollifier exp(-1 / (1 - t^2)) / Z on (-1, 1): compact support and smooth of every order.

    Normalised and inverted numerically; see `from_density`.

    Source: Friedrichs 1944, "The identity of weak and strong extensions of differential operators".

    Examples
    --------
    >>> import mollikit as mk
    >>> round(float(mk.Bump(0.1).density(0.0)), 6)
    0.828569
    """

    support = (-1.0, 1.0)
    smoothness = np.inf

    @property
    def variance(self) -> float:
        return _bump().variance

    @property
    def fisher_information(self) -> float:
        return _bump().fisher_information

    def density(self, t: Any) -> Floats:
        return np.asarray(np.where(np.abs(t) < 1, np.exp(-1 / _room(t)) / _bump().mass, 0.0))

    def cdf(self, t: Any) -> Floats:
        return _bump().cdf(t)

    def inverse_cdf(self, u: Any) -> Floats:
        return _bump().inverse_cdf(u)

    def score(self, t: Any) -> Floats:
        return np.asarray(-2 * np.asarray(t) / np.square(_room(t)))

    def characteristic_function(self, omega: Any) -> Floats:
        return _bump().characteristic_function(omega)


def _room(t: Any) -> Floats:
    """1 - t^2 inside the support, and 1 outside, where there is neither density nor score."""
    return np.asarray(np.where(np.abs(t) < 1, 1 - np.square(t), 1.0))


def _formula(t: float) -> float:
    return exp(-1 / (1 - t * t)) if abs(t) < 1 else 0.0


@cache
def _bump() -> Density:
    return Density(1.0, _formula, reach=1.0)
