from __future__ import annotations

from mollikit.budgets.base import Budget
from mollikit.budgets.seconds import Seconds


def as_budget(budget: object) -> Budget:
    """Return the budget itself, or ten seconds for None.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if budget is None:
        return Seconds(10)
    if not isinstance(budget, Budget):
        raise TypeError(
            f"budget={budget!r} is not a budget: give Evaluations(64), Seconds(10) or "
            "RelativeError(0.1), or several of them joined by |"
        )
    return budget
