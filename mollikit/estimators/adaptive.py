from __future__ import annotations

from dataclasses import dataclass

from mollikit.estimators.mirrored import Mirrored
from mollikit.estimators.piloted import Choice, Pilot, Piloted
from mollikit.estimators.shares import Shares
from mollikit.estimators.subspace import net_along
from mollikit.samplers import Antithetic, Independent, Recentred, Sampler

# Up to here a net along the pilot's directions gained more than recentred points and antithetic pairs on
# every trained net that was tried; on one of 784 coordinates it no longer did (benchmarks/samplers.md).
_NETS_UP_TO = 128
# A net's gain is foretold from below only: it is preferred unless another scheme's is this much larger.
_PREFERENCE = 2.0


@dataclass(frozen=True)
class Adaptive(Piloted):
    """The mean of the gradient over points of a scheme that a pilot of antithetic pairs has chosen.

    The pilot (groups of 4 recentred points and their reflections) measures which shares of the gradient's
    variance are linear (L) and odd (O). They foretell what schemes gain over independent points: recentred
    groups 1 / (1 - L), less a little; antithetic pairs 1 / (2 (1 - O)). The best is taken; up to 128
    coordinates that is, unless another gains twice as much, a Sobol net along the principal directions of
    the pilot's gradients, as in `Subspace`.

    ``provenance["pilot"]`` reports the shares with their errors, the gains foretold, the scheme chosen, and
    the gain that came. The pilot's evaluations are counted, and enter the estimate as a stratum of their own.
    The scheme depends on the pilot, the input's size and, for nets, on the evaluations that the budget
    allows beforehand.

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        With which density each input is smoothed.
    pilot : int
        Evaluations of the pilot, in groups of 8; at least 32.
    block : int, optional
        Rows in each call of the model.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Bowl:                              # the gradient is odd about the origin
    ...     def value_and_gradient(self, points): return (points**4).sum(-1), 4 * points**3
    >>> smooth = mk.Adaptive(mk.Gaussian(0.5))
    >>> estimate = smooth.estimate(Bowl(), np.zeros(500), budget=mk.Evaluations(256), rng=0)
    >>> estimate.provenance["pilot"]["chosen"], float(abs(estimate.gradient).max().round(12))
    ('Antithetic()', 0.0)
    """

    @property
    def _pilot_sampler(self) -> Sampler:
        return Mirrored(Recentred(4))

    def _choose(self, pilot: Pilot) -> Choice:
        shares = Shares.of(pilot.gradients)
        schemes: list[Sampler] = [Recentred(8), Antithetic(), Independent()]
        gains = {repr(scheme): shares.gain(scheme) for scheme in schemes}
        best = max(schemes, key=shares.gain)
        if pilot.dimension <= _NETS_UP_TO and (net := net_along(pilot, pilot.dimension)) is not None:
            gains[repr(net)] = shares.gain(net)
            if shares.gain(best) <= _PREFERENCE * shares.gain(net):
                best = net
        report = {
            "linear": [shares.linear, shares.linear_error],
            "odd": [shares.odd, shares.odd_error],
            "foretold": {name: gain if gain < float("inf") else None for name, gain in gains.items()},
        }
        return Choice(best, report)
