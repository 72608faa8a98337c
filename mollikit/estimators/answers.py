from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.estimators.base import Setting
from mollikit.oracles import GradientOracle


def answers(
    setting: Setting, oracle: GradientOracle, steps: NDArray[Any], rows: int
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """Ask an oracle about the input moved by these steps, in one call of ``rows`` rows.

    Parameters
    ----------
    setting : Setting
    oracle : GradientOracle
        The setting's own, or one with other weights.
    steps : array (m, moving coordinates)
        Draws of the kernels' standard forms; their memory may be used. Rows beyond them are the clean input.
    rows : int

    Returns
    -------
    values : array (rows,) or None
    gradients : array (rows, D)

    Raises
    ------
    TypeError, ValueError
        If the form or a shape of the answer is not that of the points.
    """
    layout = setting.perturbation.layout
    points = layout.points(setting.perturbation.moved(steps, rows))
    held = {name: np.broadcast_to(v, (rows, *v.shape)) for name, v in setting.held.items()}
    values, answer = oracle.value_and_gradient(points, **held)
    if values is not None:
        values = np.asarray(values)
        if values.shape != (rows,):
            raise ValueError(f"the oracle's values have shape {values.shape}; {rows} points need ({rows},)")
    return values, layout.gradients(answer, rows)
