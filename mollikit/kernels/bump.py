from __future__ import annotations

from functools import cache
from math import exp
from typing import Any

from mollikit.kernels.base import Floats, Kernel
from mollikit.kernels.density import Density, from_density


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

    @property
    def variance(self) -> float:
        return _bump().variance

    @property
    def fisher_information(self) -> float:
        return _bump().fisher_information

    def density(self, t: Any) -> Floats:
        return _bump().density(t)

    def inverse_cdf(self, u: Any) -> Floats:
        return _bump().inverse_cdf(u)

    def score(self, t: Any) -> Floats:
        return _bump().score(t)

    def characteristic_function(self, omega: Any) -> Floats:
        return _bump().characteristic_function(omega)


@cache
def _bump() -> Density:
    return from_density(lambda t: exp(-1 / (1 - t * t)) if abs(t) < 1 else 0.0, scale=1.0, reach=1.0)
