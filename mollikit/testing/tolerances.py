from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def machine_epsilon(dtype: DTypeLike) -> float:
    """Distance from 1 to the next number of a floating dtype."""
    return float(np.finfo(np.dtype(dtype)).eps)


def rounding(dtype: DTypeLike) -> float:
    """Relative difference allowed between two ways of computing one array, ``eps**(3/4)``.

    Sums of a network run over thousands of terms in an order that depends on batch size and threads;
    their rounding stays within some tens of epsilons: 6e-6 in float32, 2e-12 in float64.
    """
    return float(machine_epsilon(dtype) ** 0.75)


def central_step(dtype: DTypeLike) -> float:
    """Relative step of a central difference, ``eps**(1/3)``, where truncation balances rounding.

    The error is of order h^2 + eps/h for a step h; both are ``eps**(2/3)`` there.
    """
    return float(machine_epsilon(dtype) ** (1 / 3))


def row_differences(
    actual: NDArray[Any], expected: NDArray[Any], dtype: DTypeLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest difference of each row (m,), and what `rounding` allows relative to the row's largest entry."""
    rows = (len(expected), -1) if expected.size else (len(expected), 0)
    difference = np.abs(np.subtract(actual, expected, dtype=np.float64)).reshape(rows).max(axis=1, initial=0)
    allowed = rounding(dtype) * np.abs(expected.astype(np.float64)).reshape(rows).max(axis=1, initial=0)
    return difference, allowed


def assert_rows_close(actual: NDArray[Any], expected: NDArray[Any], dtype: DTypeLike, *, what: str) -> None:
    """Assert that each row differs from the expected one by rounding, relative to the row's largest entry.

    Parameters
    ----------
    actual, expected : array (m, *shape)
        What is compared.
    dtype : dtype
        What they were computed in.
    what : str
        What they are, for the message.

    Raises
    ------
    AssertionError
        The shapes differ, or a row is off by more than `rounding`.

    Examples
    --------
    >>> assert_rows_close(np.ones((2, 3)), np.ones((2, 3)), np.float32, what="ones")
    """
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    difference, allowed = row_differences(actual, expected, dtype)
    wrong = np.flatnonzero(~(difference <= allowed))
    assert wrong.size == 0, (
        f"{what}: rows {wrong.tolist()} differ by {difference[wrong]}, more than rounding in "
        f"{np.dtype(dtype)} ({allowed[wrong]})"
    )
