from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit._version import __version__
from mollikit.budgets import Evaluations
from mollikit.comparison.comparison import Comparison
from mollikit.comparison.conclusions import concluded
from mollikit.comparison.planned import FEWEST_ROUNDS, Planned
from mollikit.comparison.rounds import MAP, Rounds
from mollikit.comparison.schemes import Scheme, Spending, at
from mollikit.engine.streams import Key
from mollikit.estimate import Estimate
from mollikit.estimators import Estimator
from mollikit.kernels import Gaussian, Law
from mollikit.oracles import Anchored, GradientOracle, Resident, ValueOracle
from mollikit.progress import Progress, ProgressCallback
from mollikit.scales import OfRange
from mollikit.views import ViewLike


class ComparisonInterrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a comparison.

    Parameters
    ----------
    partial : Comparison or None
        Over the rounds that were finished; None before there were four.
    """

    def __init__(self, partial: Comparison | None) -> None:
        kept = "before there were four rounds" if partial is None else f"after {partial.rounds} rounds"
        super().__init__(f"interrupted {kept}; what was measured is in .partial")
        self.partial = partial


def compare(
    oracle: GradientOracle | ValueOracle,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    *,
    kernel: Law | None = None,
    schemes: Mapping[str, Scheme] | None = None,
    evaluations: Sequence[int] = (64, 256),
    rounds: int = 64,
    seconds: float | None = 60.0,
    error: float | None = None,
    view: str | None = None,
    views: Mapping[str, ViewLike] | None = None,
    held: Mapping[str, ArrayLike] | None = None,
    rng: int | None = None,
    block: int | None = None,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Compare sampling schemes at equal evaluations on one's own model and input.

    Every round makes an estimate of each scheme at each number of evaluations. Rounds are independent,
    so the distance between two of them shows the error without a truth and without trust in the
    error bars, which are themselves held against the mean of the other rounds. The schemes take turns, so
    that what else the machine does falls on all alike.

    Parameters
    ----------
    oracle : GradientOracle, or ValueOracle for estimators from values
    inputs : array (*shape), or mapping of arrays by input name
        One input, no batch axis.
    kernel : Law
        What is smoothed by; Gaussian noise of 15% of the range by default.
    schemes : mapping of name to scheme
        A sampler, an estimator with this kernel, or a function from the number of evaluations to
        one. The first is the baseline. By default every sampler that suits the input, and the oracle where
        that draws the points itself (`Resident`).
    evaluations : sequence of int
        The numbers at which they are compared; a scheme rounds down to whole groups and is charged for those.
    rounds : int
        Even, at least 4: the most there are.
    seconds : float or None
        Begin no pair of rounds that would end later; at least four rounds are made. None for no clock.
    error : float
        The wanted relative error, for what it would cost; by default what the baseline reaches.
    view : str, optional
        The view that the recommendation is about; the whole map by default.
    views, held
        As in `Pathwise.estimate`.
    rng : int or None
        A seed; round r is ``rng=(seed, r)``. With rounds fixed, the same seed gives the same errors.
    block : int, optional
        Rows in each call of the model.
    progress : callable, optional
        Called with a `Progress` after each estimate.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, before the model is called.
    ComparisonInterrupted
        On Ctrl-C, carrying what was measured.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Bowl:
    ...     def value_and_gradient(self, points): return (points**4).sum(-1), 4 * points**3
    >>> result = mk.compare(Bowl(), np.ones(4), kernel=mk.Gaussian(0.5), rounds=16, rng=0)
    >>> result.row("Sobol", 256).gain > 2            # times fewer gradients than independent points
    True
    """
    kernel = Gaussian(OfRange(0.15)) if kernel is None else kernel
    views = views or {}
    planned = Planned.of(
        inputs,
        kernel=kernel,
        schemes=schemes,
        evaluations=evaluations,
        rounds=rounds,
        seconds=seconds,
        error=error,
        view=view,
        views=views,
        block=block,
    )
    if isinstance(oracle, Anchored):
        form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
        oracle = oracle.anchored(form, **{name: np.asarray(v) for name, v in (held or {}).items()})
    if schemes is None and isinstance(oracle, Resident) and oracle.lives_on is not None:
        planned = planned.drawn_by(oracle, held or {}, views)
    numbers, schemes, made, names = planned.numbers, planned.schemes, planned.made, tuple(planned.schemes)
    key, measured, began = Key.of(rng), Rounds(), time.perf_counter()

    def conclude() -> Comparison:
        return concluded(
            measured,
            names,
            numbers,
            error=error,
            quantity=view or MAP,
            seconds=time.perf_counter() - began,
            left_out=planned.left_out,
            provenance={
                "kernel": repr(kernel),
                "schemes": {name: {n: repr(at(schemes[name], n)) for n in numbers} for name in names},
                "seed": key.seed,
                "dimension": planned.perturbation.dimension,
                "views": {name: repr(view) for name, view in views.items()},
                "versions": {"mollikit": __version__, "numpy": np.__version__},
            },
        )

    def tell(turns: float, estimate: Estimate) -> None:
        if progress is not None:
            spent, share = time.perf_counter() - began, turns / rounds
            share = min(1.0, max(share, spent / seconds if seconds else 0.0))
            evaluations = int(turns * len(names) * numbers[-1])
            progress(Progress(evaluations, spent, share, estimate.relative_error, done=turns == rounds))

    try:
        while measured.count < rounds and not _late(measured.count, began, seconds):
            turn: dict[str, _Turn] = {}
            for name in names:
                ladder = {n: made[name, n] for n in numbers}
                turn[name] = _turn(
                    ladder, oracle, inputs, held=held, views=views, rng=(key.seed, measured.count)
                )
                tell(measured.count + len(turn) / len(names), turn[name].estimates[numbers[-1]])
            measured.add(
                {(name, n): estimate for name, t in turn.items() for n, estimate in t.estimates.items()},
                {name: t.seconds_per_evaluation for name, t in turn.items()},
                {name: t.n_evaluations for name, t in turn.items()},
            )
    except KeyboardInterrupt:
        raise ComparisonInterrupted(conclude() if measured.count >= FEWEST_ROUNDS else None) from None
    return conclude()


@dataclass(frozen=True)
class _Turn:
    """What one scheme computed in one round."""

    estimates: Mapping[int, Estimate]
    n_evaluations: int
    seconds_per_evaluation: float


def _turn(
    ladder: Mapping[int, Spending],
    oracle: GradientOracle | ValueOracle,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    **options: Any,
) -> _Turn:
    """Estimate at each number of evaluations, the smallest first.

    Where the scheme stays the same, what the smaller number computed is a part of the larger one's; one
    with a pilot begins anew, since its choice follows the number.
    """
    estimates: dict[int, Estimate] = {}
    spent = 0
    before: Estimate | None = None
    previous: Spending | None = None
    for n, estimator in ladder.items():
        resume = before if isinstance(estimator, Estimator) and estimator == previous else None
        estimate = estimator.estimate(
            oracle,  # type: ignore[arg-type]  # each says by itself which protocol it needs
            inputs,
            budget=Evaluations(n),
            resume=resume,
            **options,
        )
        spent += estimate.n_evaluations - (0 if resume is None else resume.n_evaluations)
        estimates[n], before, previous = estimate, estimate, estimator
    assert before is not None
    return _Turn(estimates, spent, before.seconds / before.n_evaluations)


def _late(count: int, began: float, seconds: float | None) -> bool:
    """Whether a further pair of rounds would end after the time that there is."""
    if seconds is None or count < FEWEST_ROUNDS or count % 2:
        return False
    spent = time.perf_counter() - began
    return spent * (1 + 2 / count) > seconds
