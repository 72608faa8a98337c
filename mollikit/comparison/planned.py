from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mollikit.comparison.rounds import MAP
from mollikit.comparison.schemes import FEWEST_GROUPS, Scheme, Spending, default_schemes, estimators
from mollikit.engine.streams import Key
from mollikit.estimators import Pathwise
from mollikit.estimators.base import Setting
from mollikit.estimators.perturbation import Perturbation
from mollikit.kernels import Law
from mollikit.layout import Layout
from mollikit.oracles import Resident
from mollikit.views import ViewLike

# Two pairs of rounds: the fewest that show a spread.
FEWEST_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Planned:
    """A comparison that has been checked, before the model is called.

    Attributes
    ----------
    numbers : tuple of int
        Of evaluations, ascending.
    schemes : mapping of Scheme
    left_out : mapping of str
        Why a scheme does not suit the input, where the schemes were not chosen.
    made : mapping of Spending
        The estimator of each scheme at each number.
    perturbation : Perturbation
    """

    numbers: tuple[int, ...]
    schemes: Mapping[str, Scheme]
    left_out: Mapping[str, str]
    made: Mapping[tuple[str, int], Spending]
    perturbation: Perturbation

    @classmethod
    def of(
        cls,
        inputs: Any,
        *,
        kernel: Law,
        schemes: Mapping[str, Scheme] | None,
        evaluations: Sequence[int],
        rounds: int,
        seconds: float | None,
        error: float | None,
        view: str | None,
        views: Mapping[str, ViewLike],
        block: int | None,
    ) -> Planned:
        """Check the arguments of `mollikit.compare`.

        Raises
        ------
        TypeError, ValueError
            If one of them does not fit.
        """
        numbers = tuple(sorted({int(n) for n in evaluations}))
        _check(numbers, rounds, seconds, error, view, views)
        perturbation = Perturbation.of(inputs, Layout.of(inputs), kernel)
        left_out: dict[str, str] = {}
        if schemes is None:
            schemes, left_out = default_schemes(perturbation.dimension, perturbation.shape, numbers[0])
        if len(schemes) < 2:
            raise ValueError(f"there is nothing to compare: {list(schemes)}; give at least two schemes")
        made = estimators(schemes, numbers, kernel, block, perturbation)
        return cls(numbers, schemes, left_out, made, perturbation)

    def drawn_by(self, oracle: Resident, held: Mapping[str, Any], views: Mapping[str, ViewLike]) -> Planned:
        """Leave out the samplers that an oracle that draws the points itself does not draw.

        Raises
        ------
        ValueError
            The oracle cannot serve the first, so it is not a matter of the sampler.
        """
        arrays = {name: np.asarray(values) for name, values in held.items()}
        refused: dict[str, str] = {}
        for k, name in enumerate(self.schemes):
            estimator = self.made[name, self.numbers[0]]
            if not isinstance(estimator, Pathwise):
                continue
            sampler, about = estimator.sampler, (Key(0), arrays, dict(views))
            try:
                oracle.check_setting(Setting(oracle, self.perturbation, sampler, *about))
            except ValueError as error:
                if k == 0:
                    raise
                refused[name] = str(error)
        schemes = {name: scheme for name, scheme in self.schemes.items() if name not in refused}
        return replace(self, schemes=schemes, left_out={**self.left_out, **refused})


def _check(
    numbers: tuple[int, ...],
    rounds: int,
    seconds: float | None,
    error: float | None,
    view: str | None,
    views: Mapping[str, ViewLike],
) -> None:
    if not numbers or numbers[0] < 2 * FEWEST_GROUPS:
        raise ValueError(
            f"evaluations={numbers}: give numbers of at least {2 * FEWEST_GROUPS}, so that an error bar has "
            f"{FEWEST_GROUPS} groups of 2 points"
        )
    if rounds < FEWEST_ROUNDS or rounds % 2:
        raise ValueError(
            f"rounds={rounds}: errors are measured between pairs of rounds, of which a spread needs two: "
            f"give an even number of at least {FEWEST_ROUNDS}"
        )
    if seconds is not None and not (np.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds={seconds!r} must be a positive number")
    if error is not None and not (np.isfinite(error) and error > 0):
        raise ValueError(f"error={error!r} must be a positive number, such as 0.1")
    if MAP in views:
        raise ValueError(f"a view cannot be named {MAP!r}, which stands for the whole map")
    if view is not None and view not in views:
        raise ValueError(f"view={view!r}: there is no such view among {sorted(views)}")
