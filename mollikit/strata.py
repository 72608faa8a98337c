from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.estimate import Estimate
from mollikit.moments import Moments, Tally


@dataclass(frozen=True, eq=False, repr=False)
class Stratified(Estimate):
    """An estimate made of several independent ones of the same thing, with weights fixed beforehand.

    Its value is their weighted mean, without bias where each of them has none; its squared standard error is
    the sum of theirs, each times its squared weight. The degrees of freedom are Welch's and Satterthwaite's,
    of the errors summed over the coordinates.

    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components".

    Attributes
    ----------
    strata : tuple of Estimate
        The first is a pilot, where there was one.
    weights : tuple of float
        They sum to one.
    """

    strata: tuple[Estimate, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(
        cls,
        strata: Sequence[Estimate],
        weights: Sequence[float],
        stopped: str,
        provenance: Mapping[str, Any],
    ) -> Stratified:
        """Combine estimates of one thing; the last tells whether it is partial."""
        tallies = [estimate.tally for estimate in strata]
        outputs = [tally.output for tally in tallies if tally.output is not None]
        tally = Tally(
            _combined([tally.gradient for tally in tallies], weights),
            {name: _combined([tally.views[name] for tally in tallies], weights) for name in tallies[0].views},
            _combined(outputs, weights) if len(outputs) == len(tallies) else None,
        )
        last = strata[-1]
        return cls(
            tally,
            last.layout,
            last.group_size,
            sum(estimate.seconds for estimate in strata),
            stopped,
            last.partial,
            provenance,
            tuple(strata),
            tuple(weights),
        )

    @property
    def n_groups(self) -> int:
        return sum(estimate.n_groups for estimate in self.strata)

    @property
    def n_evaluations(self) -> int:
        return sum(estimate.n_evaluations for estimate in self.strata)

    @property
    def degrees_of_freedom(self) -> int:
        return self.tally.gradient.n - 1

    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        return {
            f"{k}.{name}": array
            for k, estimate in enumerate(self.strata)
            for name, array in estimate._arrays().items()
        }

    def _about(self) -> dict[str, Any]:
        about = super()._about()
        return {
            "strata": [estimate._about() for estimate in self.strata],
            "weights": list(self.weights),
            "stopped": self.stopped,
            "provenance": about["provenance"],
        }

    @classmethod
    def _of(cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]]) -> Estimate:
        strata = [
            Estimate._of(
                part,
                {
                    name.removeprefix(f"{k}."): array
                    for name, array in arrays.items()
                    if name.startswith(f"{k}.")
                },
            )
            for k, part in enumerate(about["strata"])
        ]
        return cls.of(strata, about["weights"], about["stopped"], about["provenance"])


def _combined(strata: Sequence[Moments], weights: Sequence[float]) -> Moments:
    """Moments with the weighted mean, its standard error, and one group more than degrees of freedom."""
    mean = sum(w * m.mean for w, m in zip(weights, strata, strict=True))
    variances = [w**2 * np.square(m.standard_error) for w, m in zip(weights, strata, strict=True)]
    total = np.sum(variances, axis=0)
    parts = np.array([variance.sum() for variance in variances])
    spread = (parts**2 / [m.n - 1 for m in strata]).sum()
    n = 1 + (int(parts.sum() ** 2 / spread) if spread > 0 else sum(m.n - 1 for m in strata))
    return Moments(n, np.asarray(mean), total * n * (n - 1))
