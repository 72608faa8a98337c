"""Suites and tolerances for those who write oracles of their own."""

from mollikit.testing.differences import Differences, central_differences
from mollikit.testing.oracle import OracleConformance
from mollikit.testing.tolerances import assert_rows_close, central_step, machine_epsilon, rounding

__all__ = [
    "Differences",
    "OracleConformance",
    "assert_rows_close",
    "central_differences",
    "central_step",
    "machine_epsilon",
    "rounding",
]
