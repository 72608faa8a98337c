"""Several targets at the same points: one forward pass, and a backward pass for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.batches import one_row
from mollikit.budgets import Budget
from mollikit.engine.run import Execution
from mollikit.engine.streams import Key
from mollikit.estimate import Estimate
from mollikit.estimators.attributions import tells_of_several
from mollikit.estimators.provenance import provenance
from mollikit.interruption import Interrupted, with_nothing_to_keep
from mollikit.oracles import Predicting
from mollikit.targets import Targets, Top, read_targets
from mollikit.views import ViewLike

if TYPE_CHECKING:
    from mollikit.estimators.base import Estimator


def of_targets(
    estimator: Estimator,
    oracle: Any,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    targets: Targets,
    held: Mapping[str, ArrayLike],
    views: Mapping[str, ViewLike],
    budget: Budget,
    key: Key,
    execution: Execution,
) -> list[Estimate]:
    """Estimate the smoothed gradients of several targets, each as it would be by itself.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the oracle tells of one target at a time.
    Interrupted
        On Ctrl-C, carrying the targets that were finished and those under way.
    """
    if not tells_of_several(oracle):
        raise TypeError(
            f"{type(oracle).__name__} has no values_and_gradients(points, targets), by which one forward "
            "pass serves several targets: give it one (mollikit.Multitarget), or estimate each by itself, "
            'with held={"target": ...}; the same rng gives the same points'
        )
    each = _resolved(oracle, inputs, targets, held)
    first = estimator._setting(oracle, inputs, {**held, "target": each[0]}, views, budget, key)
    settings = [replace(first, held={**first.held, "target": target}) for target in each]
    told = [provenance(estimator, first, budget)]
    told += [provenance(estimator, setting, budget, told[0]["weights"]) for setting in settings[1:]]
    shared = {"targets": each.tolist(), "forward_passes": "shared by the targets"}
    block = estimator._block(first, estimator.block, budget)
    about = [one | shared for one in told]
    estimates, interrupted = estimator._advance(settings, about, block, budget, None, execution)
    found = [estimate for estimate in estimates if estimate is not None]
    if interrupted:
        under_way = [estimate for estimate in found if estimate.stopped == "interrupted"]
        completed = [estimate for estimate in found if estimate.stopped != "interrupted"]
        raise Interrupted(next(iter(under_way), None), completed, under_way) from None
    return found


def _resolved(oracle: Any, inputs: Any, targets: Targets, held: Mapping[str, ArrayLike]) -> NDArray[np.int64]:
    if not isinstance(targets, Top):
        return read_targets(targets, held)
    if not isinstance(oracle, Predicting):
        raise TypeError(
            f"{targets} is found by the oracle's predict(points), which {type(oracle).__name__} lacks: give "
            "the targets themselves"
        )
    with with_nothing_to_keep():
        outputs = oracle.predict(one_row(inputs), **one_row(dict(held)))
    return read_targets(targets.of(np.asarray(outputs)[0]), held)
