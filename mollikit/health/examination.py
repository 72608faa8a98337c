from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mollikit.health.checks import deterministic, finite, independent_rows, precision, right, saturated
from mollikit.health.cost import cost
from mollikit.health.findings import Finding, Health, Verdict
from mollikit.health.patient import Patient
from mollikit.oracles import Anchored, Array, GradientOracle

_POINTS = 4


def examine(
    oracle: Any,
    inputs: Any,
    *,
    held: Mapping[str, Array] | None = None,
    seconds: float = 10.0,
    seed: int = 0,
) -> Health:
    """Examine a model at an input: can its gradients be smoothed, and what do they cost?

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape), or mapping of such arrays by name
        One input, on which the model is at home.
    held : mapping of array, optional
        The model's other inputs, without the batch axis.
    seconds : float
        For the timings, about.
    seed : int
        Of the points around the input.

    Returns
    -------
    Health
        Findings: whether answers are finite, equal calls have equal answers, rows of a batch leave each other
        alone, the gradient is that of the value, the model is not flat, the dtype, and the cost.

    Raises
    ------
    TypeError
        The oracle gives no gradients.
    ValueError, TypeError
        The input cannot be smoothed. What the model itself raises comes through, but for a lack of memory
        and gradients that are not finite, which are findings.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> from mollikit.health import examine
    >>> oracle = mk.FunctionOracle(lambda x: (x**2).sum(-1), gradient=lambda x: 2 * x)
    >>> health = examine(oracle, np.array([1.0, 2.0]), seconds=0.1)
    >>> health.healthy, health["gradient"].message[:44]
    (True, 'the gradient agrees with differences of the ')
    """
    if not isinstance(oracle, GradientOracle):
        raise TypeError(
            f"{type(oracle).__name__} has no value_and_gradient(points): there are no gradients to examine; "
            "a black box is smoothed from its values by Secant and ScoreFunction"
        )
    arrays = dict(held or {})
    try:
        anchored = oracle.anchored(inputs, **arrays) if isinstance(oracle, Anchored) else oracle
        patient = Patient.of(anchored, inputs, arrays, _POINTS, seed)
    except MemoryError as error:
        return Health((Finding("answers", Verdict.FAULT, str(error), "use a smaller input or model"),))
    except FloatingPointError as error:
        return Health((Finding("finite", Verdict.FAULT, str(error), "check the input's range"),))
    first = finite(patient)
    if first.verdict is Verdict.FAULT:
        return Health((first, precision(patient)))
    checks = (deterministic, independent_rows, right, saturated, precision)
    return Health((first, *(check(patient) for check in checks), cost(patient, seconds)))
