"""Quantus scores explanations; this lets it score mollikit's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.budgets import Budget, Seconds
from mollikit.estimators import Estimator
from mollikit.oracles import Array


@dataclass(frozen=True)
class QuantusExplainer:
    """An estimator as the ``explain_func`` of Quantus's metrics.

    An oracle is made anew for each call, because Quantus calls it with models that it has changed (its
    randomisation metrics). The same seed serves every call, so that a metric compares explanations and
    not draws: row k of a batch is explained with ``rng=(rng, k)``.

    Source: Hedström et al. 2023, "Quantus: an explainable AI toolkit for responsible evaluation of neural
    network explanations and beyond"; the signature is that of its ``explain_func``.

    Parameters
    ----------
    oracle : callable
        From a model to an oracle that takes ``target`` by row, such as ``TorchOracle``.
    smooth : Estimator
    budget : Budget
        For each input.
    rng : int
        The seed.
    view : callable, optional
        What is scored in the gradient's place, such as ``lambda g: g.sum(0, keepdims=True)``; Quantus takes
        maps (m, 1, height, width) of images.

    Raises
    ------
    TypeError
        The oracle is not made by a callable, or smooth is no estimator.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Linear:
    ...     def __init__(self, weights): self.weights = weights
    ...     def value_and_gradient(self, points, *, target):
    ...         return (points * self.weights[target]).sum(-1), self.weights[target] + 0 * points
    >>> explain = mk.QuantusExplainer(Linear, mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(32))
    >>> explain(np.eye(2), inputs=np.zeros((3, 2)), targets=np.array([0, 1, 1]))
    array([[1., 0.],
           [0., 1.],
           [0., 1.]])
    """

    oracle: Callable[[Any], Any]
    smooth: Estimator
    budget: Budget = field(default_factory=lambda: Seconds(10))
    rng: int = 0
    view: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        if not callable(self.oracle):
            raise TypeError(
                f"oracle makes one of a model, such as TorchOracle, and got a {type(self.oracle).__name__}"
            )
        if not isinstance(self.smooth, Estimator):
            raise TypeError(
                f"smooth is an estimator such as Pathwise, and got a {type(self.smooth).__name__}"
            )

    def __call__(self, model: Any, inputs: Any, targets: Any, **_arguments: Any) -> NDArray[Any]:
        """Explain a batch.

        Parameters
        ----------
        model
            What ``oracle`` makes an oracle of.
        inputs : array (m, *shape)
        targets : array (m,)
            Classes.
        **_arguments
            What else Quantus passes (a device, a normalisation): the oracle and the estimator have theirs.

        Returns
        -------
        ndarray
            (m, *shape), or what the view makes of each.
        """
        batch = np.asarray(inputs)
        held = {"target": np.asarray(targets).astype(np.int64)}
        estimates = self.smooth.estimate_batch(
            self.oracle(model), batch, held=held, budget=self.budget, rng=self.rng
        )
        maps = (np.asarray(estimate.gradient) for estimate in estimates)
        explained: NDArray[Any] = np.stack([each if self.view is None else self.view(each) for each in maps])
        return explained.astype(batch.dtype, copy=False)
