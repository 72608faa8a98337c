from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.budgets import Budget, as_budget
from mollikit.engine.run import Execution, Outcome, Plan, SharedTask, run_rows
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.blocks import Block, choose_block
from mollikit.estimators.perturbation import Perturbation
from mollikit.estimators.provenance import provenance, refuse_other_run
from mollikit.estimators.rows import rows_of, together
from mollikit.estimators.weights import WeightPerturbation
from mollikit.interruption import Interrupted, with_nothing_to_keep
from mollikit.kernels import Law
from mollikit.layout import Layout
from mollikit.moments import SECOND
from mollikit.oracles import Anchored, GradientOracle, ValueOracle
from mollikit.progress import ProgressCallback
from mollikit.samplers import Sampler
from mollikit.views import ViewLike, check_linear

Held = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Setting:
    """Everything that decides an estimate but its length: what a task is made from.

    The oracle has been checked to have the protocol that the estimator needs. Where ``drawn_on`` names a
    device, it is `Resident`, and works through blocks itself.
    """

    oracle: Any
    perturbation: Perturbation
    sampler: Sampler
    key: Key
    held: Held
    views: Mapping[str, ViewLike]
    second_moments: bool = False
    weights: WeightPerturbation | None = None
    drawn_on: str | None = None

    @property
    def group_size(self) -> int:
        """Points in a group."""
        return self.sampler.group_size(self.perturbation.dimension)

    @property
    def inputs_per_model(self) -> int | None:
        """Points that share a draw of the weights; None where the weights do not move."""
        return None if self.weights is None else self.group_size // self.weights.group_size


@dataclass(frozen=True)
class Estimator(ABC):
    """Kernels and a block: how a smoothed gradient is estimated from a model.

    Parameters
    ----------
    inputs : Law or mapping of Law by input name
        With which density each input is smoothed: a kernel, or a law made of one (`Truncated`,
        `Importance`); inputs that a mapping leaves out are not moved.
    block : int, optional
        Rows in each call of the model. It is part of what decides the bits of an
        estimate, and recorded in it. By default it follows the input's size.
    """

    inputs: Law | Mapping[str, Law] | None
    block: int | None = field(default=None, kw_only=True)

    @property
    def _whole_groups(self) -> bool:
        """Whether each call of the model holds whole groups, or a group may be spread over several calls."""
        return True

    @abstractmethod
    def _groups(self) -> Sampler:
        """Return the sampler whose groups are those of the estimate."""

    @abstractmethod
    def _check_oracle(self, oracle: object) -> None:
        """Raise TypeError where the oracle lacks the protocol that this estimator needs."""

    @abstractmethod
    def _probe(self, setting: Setting, points: Any, held: Held) -> None:
        """Call the model once, as the task will, for its time alone."""

    def _perturbation(self, inputs: Any) -> Perturbation:
        """Resolve the scales on one input."""
        return Perturbation.of(inputs, Layout.of(inputs), self.inputs)

    def _weights(self, oracle: Any) -> WeightPerturbation | None:
        """Resolve the scales on the oracle's weights, where they are smoothed."""
        return None

    def _drawn_on(self, oracle: Any) -> str | None:
        """Return the device on which the oracle itself draws; None where the host does."""
        return None

    def _check(self, perturbation: Perturbation) -> None:  # noqa: B027 - most need no check
        """Raise ValueError where the estimator cannot serve these kernels or widths."""

    def _check_budget(self, budget: Budget, dimension: int) -> None:  # noqa: B027 - most need no check
        """Raise ValueError where a budget known beforehand is too small to be of use."""

    def _streams_second_moments(self) -> bool:
        """Whether the mean square and the variance of the points are wanted beside the mean."""
        return False

    def _check_end(self, estimate: Estimate, dimension: int) -> None:  # noqa: B027 - most need no check
        """Warn where a clock ended a run before it was of use."""

    @property
    def _shares_draws(self) -> bool:
        """Whether the rows of a batch share what is dear to draw, and so advance together."""
        return False

    @abstractmethod
    def _shared_task(self, settings: Sequence[Setting], rows: int) -> SharedTask:
        """Make the pure function from a range of groups to the tallies of settings that advance together.

        A call of the model has ``rows`` rows.
        """

    @final
    def estimate(
        self,
        oracle: GradientOracle | ValueOracle,
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
    ) -> Estimate:
        """Estimate the smoothed gradient at one input.

        Parameters
        ----------
        oracle : GradientOracle, or ValueOracle for the estimators from values
            The model; ``mollikit_onnx.OnnxOracle``, or any object with ``value_and_gradient`` (or ``value``).
        inputs : array (*shape), or mapping of arrays by input name
            One input, no batch axis, of a floating dtype.
        held : mapping of arrays
            What the oracle takes beside the points (a target, a mask, token ids): for this one input,
            no batch axis; it travels unperturbed with every point.
        views : mapping of View or linear callable
            Linear functionals of the gradient, each to get an error bar of its own.
        budget : Budget
            When to stop; ten seconds by default.
        rng : int, (int, int), numpy.random.Generator or None
            A seed, or a seed and an item. The same seed gives the same bits; None draws one and records it.
        executor : concurrent.futures.Executor, optional
            Where blocks are evaluated; the bits do not depend on it.
        in_flight : int, optional
            How many blocks may be under way at once in the executor; by default the cores and one more.
        progress : callable, optional
            Called with a `Progress` after each block, such as ``ProgressBar()``.
        resume : Estimate, optional
            An estimate of the same thing to go on from; the budget's evaluations count from its start.

        Returns
        -------
        Estimate

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, before the model is called; or if the oracle's answer does not.
        FloatingPointError
            If the oracle returns a NaN or an infinity.
        Interrupted
            On Ctrl-C, carrying the partial estimate.
        """
        budget = as_budget(budget)
        setting = self._setting(oracle, inputs, held or {}, views or {}, budget, Key.of(rng))
        about = provenance(self, setting, budget)
        if resume is not None:
            if not isinstance(resume, Estimate):
                raise TypeError(f"resume={resume!r} is not an Estimate; read a saved one by Estimate.load")
            asked = {} if self.block is None else {"block": self._block(setting, self.block, budget).rows}
            refuse_other_run(resume, about | asked)
        execution = Execution(executor, in_flight, progress)
        block = self._block(setting, self.block if resume is None else resume.block, budget)
        (estimate,), interrupted = self._advance([setting], [about], block, budget, resume, execution)
        if interrupted:
            raise Interrupted(estimate) from None
        assert estimate is not None
        self._check_end(estimate, setting.perturbation.dimension)
        return estimate

    @final
    def estimate_batch(
        self,
        oracle: GradientOracle | ValueOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        budget: Budget | None = None,
        rng: Rng = None,
        executor: Executor | None = None,
        in_flight: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[Estimate]:
        """Estimate the smoothed gradient at each row of a batch, each with its own error bars and stopping.

        Row k with ``rng=s`` is, bit for bit, ``estimate`` of that row with ``rng=(s, k)``: a call of the
        model holds points of one row alone. Where the weights are smoothed, rows advance together under
        models that are drawn once for all of them; progress is then that of all. Arguments are those of
        `estimate`, but for these.

        Parameters
        ----------
        inputs : array (rows, *shape), or mapping of such arrays
            All of them are checked before the model is called.
        held : mapping of arrays
            With a leading axis of rows: ``held={"target": [3, 5]}`` gives each row its own target.
        budget : Budget
            Of each row.
        rng : int, numpy.random.Generator or None
            A seed; the items are the rows.

        Raises
        ------
        Interrupted
            On Ctrl-C, carrying the rows that were finished and what there is of those that were not.
        """
        if isinstance(rng, tuple):
            raise TypeError(f"rng={rng!r}: a batch numbers its rows itself; give the seed alone")
        key = Key.of(rng)
        rows = rows_of(inputs, held or {})
        for k, (row, _) in enumerate(rows):
            try:
                self._check(self._perturbation(row))
            except ValueError as error:
                raise ValueError(f"row {k}: {error}") from error
        if self._shares_draws:
            execution = Execution(executor, in_flight, progress)
            return together(self, oracle, rows, views or {}, as_budget(budget), key.seed, execution)
        done: list[Estimate] = []
        for k, (row, beside) in enumerate(rows):
            try:
                done.append(
                    self.estimate(
                        oracle,
                        row,
                        held=beside,
                        views=views,
                        budget=budget,
                        rng=(key.seed, k),
                        executor=executor,
                        in_flight=in_flight,
                        progress=progress,
                    )
                )
            except Interrupted as interrupt:
                raise Interrupted(interrupt.partial, done) from None
        return done

    def _advance(
        self,
        settings: Sequence[Setting],
        about: Sequence[dict[str, Any]],
        block: Block,
        budget: Budget,
        resume: Estimate | None,
        execution: Execution,
    ) -> tuple[list[Estimate | None], bool]:
        """Evaluate one row, or several together; say whether an interrupt ended it.

        The estimate of a row with fewer than two groups is None.
        """
        group_size = settings[0].group_size
        so_far, start = (None, 0) if resume is None else (resume.tally, resume.n_groups)
        while True:
            try:
                outcomes, interrupted = run_rows(
                    self._shared_task(settings, block.rows),
                    len(settings),
                    Plan(group_size, block.groups, start, budget.limit(group_size)),
                    budget,
                    execution,
                    so_far,
                )
                break
            except MemoryError:
                # The bits depend on the block, so a smaller one begins anew, from the first group.
                smaller = block.halved(self._whole_groups)
                if smaller is None:
                    raise
                block = smaller
                so_far, start = None, 0
        estimates = [
            _estimate(outcome, setting, resume, told | {"block": block.rows})
            for outcome, setting, told in zip(outcomes, settings, about, strict=True)
        ]
        return estimates, interrupted

    def _setting(
        self,
        oracle: Any,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        held: Mapping[str, ArrayLike],
        views: Mapping[str, ViewLike],
        budget: Budget,
        key: Key,
        weights: WeightPerturbation | None = None,
        *,
        by_host: bool = False,
    ) -> Setting:
        """Check everything that can be checked before the model is called; weights may be known already.

        ``by_host`` has the points drawn there, also for an oracle that would draw its own.
        """
        perturbation = self._perturbation(inputs)
        self._check(perturbation)
        sampler = self._groups()
        sampler.check(perturbation.dimension)
        sampler.check_grid(perturbation.shape)
        self._check_budget(budget, perturbation.dimension)
        if not isinstance(views, Mapping):
            raise TypeError(f"views={views!r} is not a mapping: name each view, such as {{'seen': Pool(8)}}")
        second = self._streams_second_moments()
        if second and (taken := SECOND & views.keys()):
            raise ValueError(
                f"a view cannot be called {min(taken)!r}: the second moments are; name it otherwise"
            )
        known = views.keys() | (SECOND if second else set())
        budget.check(sampler.group_size(perturbation.dimension), known, sampler.fewest_groups)
        _check_views(views, perturbation.layout)
        arrays = {name: np.asarray(values) for name, values in held.items()}
        if isinstance(oracle, Anchored):
            form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
            with with_nothing_to_keep():
                oracle = oracle.anchored(form, **arrays)
        self._check_oracle(oracle)
        weights = weights or self._weights(oracle)
        device = None if by_host else self._drawn_on(oracle)
        setting = Setting(oracle, perturbation, sampler, key, arrays, dict(views), second, weights, device)
        if device is not None:
            oracle.check_setting(setting)
        return setting

    def _block(self, setting: Setting, asked: int | None, budget: Budget) -> Block:
        def probe(rows: int) -> None:
            base = np.tile(setting.perturbation.base, (rows, 1))
            held = {name: np.broadcast_to(v, (rows, *v.shape)) for name, v in setting.held.items()}
            with with_nothing_to_keep():
                self._probe(setting, setting.perturbation.layout.points(base), held)

        size, group_size = setting.perturbation.layout.size, setting.group_size
        limit, deadline = budget.limit(group_size), budget.deadline()
        return choose_block(
            asked,
            size,
            group_size,
            limit,
            deadline,
            probe,
            whole_groups=self._whole_groups,
            most_rows=setting.inputs_per_model,
        )


def _check_views(views: Mapping[str, ViewLike], layout: Layout) -> None:
    for name, view in views.items():
        check_linear(name, view, layout.unflatten, layout.size)


def _estimate(
    outcome: Outcome, setting: Setting, resume: Estimate | None, about: dict[str, Any]
) -> Estimate | None:
    if outcome.tally is None or outcome.n_groups < 2:
        return None
    group_size = setting.group_size
    by_clock = outcome.stopped is not None and outcome.stopped.by_clock
    return Estimate(
        tally=outcome.tally,
        layout=setting.perturbation.layout,
        group_size=group_size,
        seconds=outcome.seconds + (0.0 if resume is None else resume.seconds),
        stopped="interrupted" if outcome.interrupted else str(outcome.stopped or about["budget"]),
        partial=outcome.interrupted or by_clock,
        provenance=about | {"n_evaluations": outcome.n_groups * group_size},
    )
