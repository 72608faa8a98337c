from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mollikit.estimators.piloted import FEWEST_GROUPS, Choice, Pilot, Piloted
from mollikit.samplers import Antithetic, Recentred, RotatedSobol, Sampler

# Points of a net where nothing is known of the evaluations to come, the fewest worth laying, and the most.
_POINTS, _FEWEST, _MOST = 128, 16, 1024
# Directions along which the pilot saw less than this share of its spread are noise of rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Subspace(Piloted):
    """The mean of the gradient over a Sobol net along the directions in which it varies most.

    A pilot of antithetic pairs shows the principal directions of the gradient's variance, in units of the
    widths; a net of digitally shifted, scrambled Sobol points lies along them, its best coordinates first,
    and recentred points fill the rest of the space (`RotatedSobol`). Each point has exactly the
    kernel's law whatever the directions are, so a poor pilot costs precision, and no bias.

    ``provenance["pilot"]`` reports the share of the pilot's variance along the directions, and the gain that
    came. The pilot's evaluations are counted, and enter the estimate as a stratum of their own. The
    pilot's gradients are kept while it runs: ``pilot`` times the input's size.

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        With which density each input is smoothed.
    directions : int
        At most.
    pilot : int
        Evaluations of the pilot, in pairs; at least 8.
    block : int, optional
        Rows in each call of the model; a net is evaluated whole.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Ridge:                             # varies along one direction of a hundred
    ...     def value_and_gradient(self, points):
    ...         along = points.sum(-1) / 10
    ...         return np.sin(along), np.cos(along)[:, None] * np.full(100, 0.1)
    >>> smooth = mk.Subspace(mk.Gaussian(1.0))
    >>> estimate = smooth.estimate(Ridge(), np.zeros(100), budget=mk.Evaluations(1024), rng=0)
    >>> bool(abs(estimate.gradient - 0.1 * np.exp(-0.5)).max() < 1e-3)
    True
    """

    directions: int = 16
    pilot: int = field(default=32, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions < 1:
            raise ValueError(f"Subspace: directions={self.directions}: at least one is needed")

    @property
    def _pilot_sampler(self) -> Sampler:
        return Antithetic()

    def _choose(self, pilot: Pilot) -> Choice:
        net = net_along(pilot, self.directions)
        if net is None:
            return Choice(Recentred(8), {"directions": 0, "share": 0.0})
        frame = np.asarray(net.directions)
        rows = _deviations(pilot)
        share = float(np.square(rows @ frame).sum() / np.square(rows).sum())
        return Choice(net, {"directions": frame.shape[1], "share": share})


def net_along(pilot: Pilot, directions: int) -> RotatedSobol | None:
    """Lay a net along the pilot's principal directions; None where nothing varied, or too little is left.

    It has the most points, up to 1024, that a call may hold and of which the evaluations that are left hold
    eight nets.
    """
    most = _POINTS if pilot.limit is None else min(pilot.limit // FEWEST_GROUPS, _MOST)
    points = 1 << max(min(most, pilot.rows).bit_length() - 1, 0)
    rows = _deviations(pilot)
    if points < _FEWEST or not rows.any():
        return None
    _, spreads, axes = np.linalg.svd(rows, full_matrices=False)
    count = min(directions, int((spreads > _ROUNDING * spreads[0]).sum()))
    return RotatedSobol(axes[:count].T, points)


def _deviations(pilot: Pilot) -> np.ndarray:
    rows = pilot.gradients.reshape(-1, pilot.dimension)
    return np.asarray(rows - rows.mean(axis=0))
