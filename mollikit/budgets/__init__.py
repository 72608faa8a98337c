"""When to stop, one question a file."""

from mollikit.budgets.base import FIRST_LOOK, Budget, FirstOf, Status
from mollikit.budgets.default import as_budget
from mollikit.budgets.errors import AbsoluteError, RelativeError
from mollikit.budgets.evaluations import Evaluations
from mollikit.budgets.ranking import StableRanking
from mollikit.budgets.seconds import Seconds

__all__ = [
    "FIRST_LOOK",
    "AbsoluteError",
    "Budget",
    "Evaluations",
    "FirstOf",
    "RelativeError",
    "Seconds",
    "StableRanking",
    "Status",
    "as_budget",
]
