from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.budgets import Budget
from mollikit.engine.run import SharedTask, Task, alone
from mollikit.estimate import Estimate
from mollikit.estimators.base import Estimator, Held, Setting
from mollikit.estimators.perturbation import Perturbation
from mollikit.oracles import ValueOracle

_MEND = (
    "Give more, or smooth in a basis of fewer coefficients (InBasis with Superpixels, Cosines or Columns); "
    "allow_poor=True takes it as it is"
)


@dataclass(frozen=True)
class FromValues(Estimator):
    """An estimator that asks the model for values alone.

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        With which density each input is smoothed. Every coordinate must move: what does not move has no
        gradient that values could show.
    block : int, optional
        Rows in each call of the model; a group may be spread over several calls.
    allow_poor : bool
        Take a budget whose estimate can say next to nothing.
    """

    allow_poor: bool = field(default=False, kw_only=True)

    @property
    def _whole_groups(self) -> bool:
        return False

    @abstractmethod
    def _task(self, setting: Setting, rows: int) -> Task:
        """Make the pure function from a range of groups to their tally, with ``rows`` rows in each call."""

    def _shared_task(self, settings: Sequence[Setting], rows: int) -> SharedTask:
        (setting,) = settings  # rows of a batch have nothing to share
        return alone(self._task(setting, rows))

    @abstractmethod
    def _fewest(self, dimension: int) -> tuple[int, str]:
        """Evaluations below which the estimate is of no use, and why."""

    def _check_oracle(self, oracle: object) -> None:
        if not isinstance(oracle, ValueOracle):
            raise TypeError(
                f"{type(oracle).__name__} has no value(points), which is all that {type(self).__name__} asks "
                "for; an oracle that gives gradients is better served by Pathwise"
            )

    def _probe(self, setting: Setting, points: Any, held: Held) -> None:
        setting.oracle.value(points, **held)

    def _check(self, perturbation: Perturbation) -> None:
        for leaf in perturbation.layout.leaves:
            fixed = int((perturbation.widths[leaf.start : leaf.stop] == 0).sum())
            if fixed:
                raise ValueError(
                    f"{leaf.label}: {fixed} of {leaf.stop - leaf.start} coordinates have a width of zero or "
                    f"no kernel, and {type(self).__name__} learns from values only about what moves; give "
                    "them a width, pass a whole input in held=, or choose coordinates by a basis (InBasis)"
                )

    def _check_budget(self, budget: Budget, dimension: int) -> None:
        group_size = self._groups().group_size(dimension)
        groups, (fewest, reason) = budget.limit(group_size), self._fewest(dimension)
        if groups is not None and groups * group_size < fewest and not self.allow_poor:
            raise ValueError(
                f"{budget} allows {groups * group_size} evaluations, in groups of {group_size}, and in "
                f"{dimension} coordinates {type(self).__name__} needs {fewest}: {reason}. {_MEND}"
            )

    def _check_end(self, estimate: Estimate, dimension: int) -> None:
        fewest, reason = self._fewest(dimension)
        if estimate.n_evaluations < fewest and not self.allow_poor:
            warnings.warn(
                f"{estimate.stopped} ended {type(self).__name__} after {estimate.n_evaluations} evaluations, "
                f"and in {dimension} coordinates it needs {fewest}: {reason}. {_MEND}",
                stacklevel=3,
            )


def evaluate(setting: Setting, inputs: NDArray[Any], rows: int) -> NDArray[np.float64]:
    """Values (m,) of the model at inputs (m, D), in calls of ``rows`` rows, the last one padded.

    Raises
    ------
    ValueError
        If the values do not have the shape of the rows.
    FloatingPointError
        If a value is NaN or infinite.
    """
    layout = setting.perturbation.layout
    held = {name: np.broadcast_to(v, (rows, *v.shape)) for name, v in setting.held.items()}
    parts = []
    for start in range(0, len(inputs), rows):
        part = inputs[start : start + rows]
        if len(part) < rows:
            part = np.concatenate([part, np.tile(setting.perturbation.base, (rows - len(part), 1))])
        values = np.asarray(setting.oracle.value(layout.points(part), **held))
        if values.shape != (rows,):
            raise ValueError(f"the oracle's values have shape {values.shape}; {rows} points need ({rows},)")
        parts.append(values.astype(np.float64))
    values = np.concatenate(parts)[: len(inputs)]
    if bad := int((~np.isfinite(values)).sum()):
        raise FloatingPointError(
            f"the oracle's value is NaN or infinite at {bad} of {len(values)} points: it overflows there, or "
            "a smaller scale is needed"
        )
    return values
