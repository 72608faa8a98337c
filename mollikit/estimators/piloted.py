from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.budgets import Budget, Evaluations, as_budget
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.perturbation import Perturbation
from mollikit.interruption import Interrupted, with_nothing_to_keep
from mollikit.kernels import Law
from mollikit.layout import Layout
from mollikit.oracles import Anchored, Array, GradientOracle, Resident, named
from mollikit.progress import Progress, ProgressCallback
from mollikit.samplers import Sampler
from mollikit.strata import Stratified
from mollikit.views import ViewLike

# What an evaluation of the pilot weighs in the estimate, in evaluations of the scheme: fixed beforehand,
# since a weight that follows what the pilot saw would bias the mean. A pilot is worth less than the
# scheme, by a factor that is not known; half loses next to nothing for gains from 1 to 12.
_WORTH = 0.5
# Coordinates that one call of the model may hold, unless a block is given.
_COORDINATES = 1 << 20
# Groups of the scheme that an error bar is worth having of.
FEWEST_GROUPS = 8


@dataclass(frozen=True)
class Pilot:
    """What a pilot saw.

    Attributes
    ----------
    gradients : ndarray
        (groups, points of a group, moving coordinates), in units of the widths: by the step t.
    limit : int or None
        Evaluations that are left, where that is known beforehand.
    rows : int
        The most points of a group, which one call of the model holds.
    """

    gradients: NDArray[np.float64]
    limit: int | None
    rows: int

    @property
    def variance(self) -> float:
        """Of a point, summed over the coordinates: by the law of total variance, without bias."""
        means = self.gradients.mean(axis=1)
        within = np.square(self.gradients - means[:, None]).sum(axis=2).mean()
        return float(within + means.var(axis=0, ddof=1).sum())

    @property
    def dimension(self) -> int:
        """The number of coordinates that move."""
        return int(self.gradients.shape[-1])


@dataclass(frozen=True)
class Choice:
    """The scheme that a pilot led to, and what is to be reported of it, fit for JSON."""

    sampler: Sampler
    report: dict[str, Any]


@dataclass(frozen=True)
class Piloted(ABC):
    """An estimator that learns its scheme from a pilot and keeps the pilot's evaluations in the estimate.

    The pilot has streams of random numbers of its own, so that the scheme's points do not depend on what
    it saw; both parts are unbiased, and their weights are fixed by their numbers of evaluations. All
    evaluations are counted. Budgets of errors look at the scheme's part alone.

    Parameters
    ----------
    inputs : Law or mapping of Law by input name
        With which density each input is smoothed.
    pilot : int
        Evaluations of the pilot, in whole groups.
    block : int, optional
        Rows in each call of the model.
    """

    inputs: Law | Mapping[str, Law]
    pilot: int = field(default=64, kw_only=True)
    block: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        size = self._pilot_sampler.group_size(1)
        if self.pilot < 4 * size:
            raise ValueError(
                f"{type(self).__name__}: pilot={self.pilot} evaluations hold fewer than four groups of {size}"
            )

    @property
    @abstractmethod
    def _pilot_sampler(self) -> Sampler:
        """How the pilot's points are drawn: groups of one size for any dimension."""

    @abstractmethod
    def _choose(self, pilot: Pilot) -> Choice:
        """Choose the scheme."""

    @final
    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        budget: Budget | None = None,
        rng: Rng = None,
        executor: Executor | None = None,
        in_flight: int | None = None,
        progress: ProgressCallback | None = None,
        resume: Estimate | None = None,
    ) -> Stratified:
        """Estimate the smoothed gradient at one input; the arguments are those of `Pathwise.estimate`.

        Returns
        -------
        Stratified
            Its ``strata`` are the pilot's estimate and the scheme's; ``provenance["pilot"]`` reports what was
            learnt.

        Raises
        ------
        ValueError
            If the budget does not hold the pilot and eight groups of the smallest scheme; otherwise as
            `Pathwise.estimate`.
        """
        began = time.perf_counter()
        budget, key = as_budget(budget), Key.of(rng)
        size = self._pilot_sampler.group_size(1)
        evaluations = self.pilot // size * size
        budget.check(size, (views or {}).keys())
        if resume is not None and not (isinstance(resume, Stratified) and "pilot" in resume.provenance):
            raise ValueError(f"resume= holds no estimate of {type(self).__name__}")
        total = budget.limit(1)
        if total is not None and total < 2 * evaluations:
            raise ValueError(
                f"{budget} leaves too little after a pilot of {evaluations} evaluations: give at least "
                f"{2 * evaluations}, a smaller pilot=, or use Pathwise"
            )
        if isinstance(oracle, Anchored):
            form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
            arrays = {name: np.asarray(values) for name, values in (held or {}).items()}
            with with_nothing_to_keep():
                oracle = oracle.anchored(form, **arrays)
        if isinstance(oracle, Resident) and oracle.lives_on is not None:
            oracle = Hosted(oracle)
        options: dict[str, Any] = {"held": held, "views": views}
        watched = Watched(oracle, [])
        piloted = Pathwise(self.inputs, self._pilot_sampler, block=self.block)
        first = piloted.estimate(watched, inputs, budget=Evaluations(evaluations), rng=_apart(key), **options)
        layout = Layout.of(inputs)
        perturbation = Perturbation.of(inputs, layout, self.inputs)
        rows = watched.gradients(layout)[:evaluations] * perturbation.widths.astype(np.float64)
        moving = rows if perturbation.moving is None else rows[:, perturbation.moving]
        # What is gone on with keeps its scheme, which was chosen for the evaluations of that time.
        left = None if total is None else total - evaluations
        pilot = Pilot(
            moving.reshape(evaluations // size, size, -1),
            left if resume is None else resume.provenance["pilot"]["left"],
            self.block or _COORDINATES // layout.size,
        )
        choice = self._choose(pilot)
        report = {"evaluations": evaluations, "left": pilot.limit, "chosen": repr(choice.sampler)}
        report |= choice.report
        smooth = Pathwise(self.inputs, choice.sampler, block=self.block)

        rest = budget.left(evaluations, time.perf_counter() - began)
        asked = dict(zip(map(str, rest.parts), map(str, budget.parts), strict=True))

        def told(progressed: Progress) -> None:
            assert progress is not None
            progress(replace(progressed, n_evaluations=progressed.n_evaluations + evaluations))

        def both(second: Estimate) -> Stratified:
            share = _WORTH * evaluations / (_WORTH * evaluations + second.n_evaluations)
            about = {
                "estimator": type(self).__name__,
                "pilot": report | {"came": _came(pilot, perturbation, second)},
                "budget": str(budget),
                "n_evaluations": evaluations + second.n_evaluations,
            }
            stopped = asked.get(second.stopped, second.stopped)
            return Stratified.of((first, second), (share, 1 - share), stopped, {**second.provenance, **about})

        try:
            second = smooth.estimate(
                oracle,
                inputs,
                budget=rest,
                rng=(key.seed, key.item),
                executor=executor,
                in_flight=in_flight,
                progress=None if progress is None else told,
                resume=resume.strata[1] if isinstance(resume, Stratified) else None,
                **options,
            )
        except Interrupted as interrupt:
            partial = first if interrupt.partial is None else both(interrupt.partial)
            raise Interrupted(partial) from None
        return both(second)


@dataclass(frozen=True)
class Hosted:
    """A model that would draw its points itself, asked about the host's, as schemes that are learnt are."""

    oracle: GradientOracle

    def __repr__(self) -> str:
        return named(self.oracle)

    def value_and_gradient(self, points: Any, **held: Array) -> tuple[Array | None, Any]:
        """As the model's."""
        return self.oracle.value_and_gradient(points, **held)


@dataclass(frozen=True, eq=False)
class Watched:
    """A model whose gradients are kept: those of a pilot, whose number is fixed."""

    oracle: GradientOracle
    seen: list[tuple[Any, int]]

    def __repr__(self) -> str:
        return named(self.oracle)

    def value_and_gradient(self, points: Any, **held: Array) -> tuple[Array | None, Any]:
        """As the model's."""
        try:
            values, gradients = self.oracle.value_and_gradient(points, **held)
        except MemoryError:  # the run begins anew, with smaller blocks
            self.seen.clear()
            raise
        first = next(iter(points.values())) if isinstance(points, Mapping) else points
        self.seen.append((gradients, len(first)))
        return values, gradients

    def gradients(self, layout: Layout) -> NDArray[Any]:
        """All rows (m, D), in the order of the points, padding at the end."""
        return np.concatenate([layout.gradients(part, rows) for part, rows in self.seen])


def _came(pilot: Pilot, perturbation: Perturbation, estimate: Estimate) -> float | None:
    """Variance of the pilot's points, as if they were independent, over that of the scheme's."""
    errors = np.asarray(estimate.tally.gradient.standard_error) * perturbation.widths
    left = float(np.square(errors).sum()) * estimate.n_evaluations
    return float(pilot.variance / left) if 0 < left < np.inf else None


def _apart(key: Key) -> tuple[int, int]:
    """A seed of the pilot's own, for the same item."""
    told = blake2b(f"pilot of {key.seed}".encode(), digest_size=8).digest()
    return int.from_bytes(told, "little"), key.item
