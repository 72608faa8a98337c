from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimators import Pathwise
from mollikit.estimators.perturbation import Perturbation
from mollikit.interruption import Interrupted
from mollikit.kernels import Gaussian
from mollikit.layout import Layout
from mollikit.moments import Moments, Tally
from mollikit.oracles import Array, GradientOracle
from mollikit.progress import ProgressCallback
from mollikit.surrogates import Ridges, TwoLevel, TwoLevelEstimate
from mollikit.surrogates.parts import derived
from mollikit_onnx.errors import ModelError
from mollikit_onnx.mean_gates.estimator import AtInput, MeanGates
from mollikit_onnx.mean_gates.forms import LinearForms
from mollikit_onnx.mean_gates.rectified import RectifiedLayer
from mollikit_onnx.runtime.oracle import OnnxOracle

# Of the budget, what the linear forms may cost where the number of layers is left open.
_SHARE = 0.1
# The mean of pooled layers is integrated this often, for its error bar.
_REPLICATES = 8


@dataclass(frozen=True)
class GateVariates:
    """Unbiased: gradients less what linear forms of the noise foretell of the gates, plus the mean of that.

    The gradient of a net of ReLUs jumps with its gates. Before the first ReLU the net is linear: what it
    rectifies is normal with known moments, and the chance of each gate is known. Behind it a model made
    linear by mean gates (`MeanGates`) foretells the others. The shallow network of these gates
    (`mollikit.Ridges`) has a known mean gradient, and the net's gradient differs from its by little, which is
    all that has to be estimated, by `mollikit.TwoLevel`. However bad the forms are, the estimate is
    unbiased, with error bars from independent groups.

    Counted among the evaluations are forward passes for the averages (a third of a gradient each), a pass
    of the linear model for each coordinate, as far as its layers go, and each point of the shallow network,
    by its multiplications. The mean of layers that are pooled is integrated numerically, in 8 independent
    replicates whose error bar is that of the estimate's first level; that of others is exact.

    Parameters
    ----------
    pathwise : Pathwise
        How points are drawn; the kernels are `mollikit.Gaussian`.
    forwards : int
        Passes for the averages.
    layers : int, optional
        How many rectified layers, from the first, are foretold. By default as many as have their forms
        for a tenth of the budget, one at least: all of a perceptron, the first of a convolutional net.

    Raises
    ------
    ValueError
        If there are fewer than 4 passes, or no layer.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> from onnx import parser
    >>> from mollikit_onnx import GateVariates, OnnxOracle
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
    ...     'net (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }')
    >>> variates = GateVariates(mk.Pathwise(mk.Gaussian(0.5)))
    >>> x = np.array([0.0, 2.0, -2.0], np.float32)
    >>> estimate = variates.estimate(OnnxOracle(model, target=0), x, budget=mk.Evaluations(1024), rng=0)
    >>> estimate.gradient.round(6), bool(estimate.standard_error.max() < 1e-6)  # one layer: nothing is left
    (array([0.5, 0. , 0. ]), True)
    """

    pathwise: Pathwise
    forwards: int = field(default=64, kw_only=True)
    layers: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"GateVariates: layers={self.layers!r}; at least the first is foretold")
        if not isinstance(self.pathwise, Pathwise):
            raise TypeError(
                f"GateVariates: {self.pathwise!r} is not a Pathwise: give Pathwise(Gaussian(0.1))"
            )
        self._gates()

    def _gates(self) -> MeanGates:
        if self.pathwise.inputs is None:
            raise ValueError(
                f"GateVariates: {self.pathwise!r} smooths no input, and forms of its noise foretell"
            )
        return MeanGates(self.pathwise.inputs, self.forwards)

    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        budget: Budget = Evaluations(1024),  # noqa: B008 - frozen
        rng: Rng = None,
        executor: Executor | None = None,
        progress: ProgressCallback | None = None,
    ) -> TwoLevelEstimate:
        """Estimate the smoothed gradient at one input.

        Parameters
        ----------
        oracle, inputs, held, rng, executor, progress
            As in `mollikit.TwoLevel.estimate`.
        budget : Evaluations
            In gradients of the model, never exceeded.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or the budget is too small.
        mollikit_onnx.ModelError
            If the model has no ReLU that is reached by noise, or an operator without a mean gate.
        """
        began = time.perf_counter()
        if not isinstance(budget, Evaluations):
            raise TypeError(f"GateVariates: budget={budget!r}; give Evaluations(n)")
        key, layout = Key.of(rng), Layout.of(inputs)
        gates = self._gates()
        if not isinstance(oracle, OnnxOracle):
            raise TypeError(
                f"GateVariates works inside of an ONNX model: give an OnnxOracle, not {type(oracle).__name__}"
            )
        gates._check(oracle)
        perturbation = Perturbation.of(inputs, layout, self.pathwise.inputs)
        for kernel, _ in perturbation.kernels:
            if not isinstance(kernel, Gaussian):
                raise TypeError(
                    f"GateVariates: {kernel!r}; the chances of gates are known for Gaussian alone"
                )
        beside = {name: np.asarray(value) for name, value in (held or {}).items()}
        anchored = oracle.anchored(inputs if isinstance(inputs, Mapping) else np.asarray(inputs), **beside)
        model = gates._at_input(
            anchored,
            layout.points(perturbation.base[None]),
            {name: value[None] for name, value in beside.items()},
        )
        layers, cost = self._chosen(model, layout.size, perturbation.dimension, budget.n)
        _, moments = gates._averaged(anchored, perturbation, beside, Key(*derived(key, 0)))

        def feed_of(rows: Array) -> dict[str, Array]:
            others = {name: value[None] for name, value in beside.items() if name != "target"}
            feed: dict[str, Array] = anchored._feed(layout.points(rows), others)[0]
            return feed

        moving = np.arange(layout.size) if perturbation.moving is None else perturbation.moving
        forms = LinearForms(model, moments, layers, feed_of)
        ridges = Ridges(inputs, forms.rectified(moving, perturbation.base))
        price = sum(layer.work for layer in ridges.layers) / _work(model, layout.size)
        pooled = any(layer.size > 1 for layer in ridges.layers)
        widths, nodes = layout.unflatten(perturbation.widths), _nodes(budget.n)
        means = Moments.of(
            [
                layout.flatten(ridges.smoothed(widths, nodes=nodes, rng=derived(key, 3 + k)))
                for k in range(_REPLICATES if pooled else 1)
            ]
        )

        def finished(found: TwoLevelEstimate) -> TwoLevelEstimate:
            told = {**found.difference.provenance, "estimator": repr(ridges), "n_evaluations": means.n}
            known = replace(found.difference, tally=Tally(means, {}, None), provenance=told)
            return replace(
                found,
                coarse=known if pooled else None,
                n_evaluations=found.n_evaluations + cost,
                seconds=time.perf_counter() - began,
                provenance={
                    **found.provenance,
                    "estimator": repr(self),
                    "layers": [layer.source for layer in layers],
                    "forwards": moments.n,
                    "before": cost,
                    "budget": str(budget),
                    "seed": key.seed,
                    "item": key.item,
                },
            )

        two = TwoLevel(self.pathwise, ridges, price=price, mean=layout.unflatten(means.mean))
        left, least = int(budget.n - cost), two._least(layout.size)
        if left < least:
            raise ValueError(
                f"GateVariates: {budget} leaves {left} gradients beside the forms ({cost:.4g}), and an error "
                f"bar takes {least:.4g}: give at least Evaluations({int(np.ceil(cost + np.ceil(least)))}), "
                "or a sampler with smaller groups"
            )
        try:
            found = two.estimate(
                anchored,
                inputs,
                held=held,
                budget=Evaluations(left),
                rng=derived(key, 2),
                executor=executor,
                progress=progress,
            )
        except Interrupted as interrupt:
            partial = interrupt.partial
            raise Interrupted(None if partial is None else finished(partial)) from None
        return finished(found)

    def _chosen(
        self, model: AtInput, size: int, dimension: int, n: int
    ) -> tuple[Sequence[RectifiedLayer], float]:
        """The layers, and what is spent before the first gradient."""
        linear, work = model.linear.model, _work(model, size)
        if not linear.rectified:
            raise ModelError(
                "GateVariates: the gates of Relu, alone or with a MaxPool behind it, are foretold, and there "
                "is none between the input and the output: use mollikit.Pathwise"
            )
        costs = [dimension * layer.work / work / 3 for layer in linear.rectified]
        count = self.layers or max(1, sum(cost <= _SHARE * n for cost in costs))
        layers = linear.rectified[:count]
        shapes = [layer.windows.shape for layer in layers]
        pooled = sum(count * k**2 for count, k in shapes if k > 1)
        forms, means = costs[len(layers) - 1], _REPLICATES * _nodes(n) * pooled / work / 2
        spent = self.forwards / 3 + 1 + forms + means
        if spent > n / 2:
            raise ValueError(
                f"GateVariates: the forms of {len(layers)} layers in {dimension} coordinates cost "
                f"{spent:.0f} gradients, and the budget is {n}: give fewer layers, or a larger budget"
            )
        return layers, spent


def _nodes(n: int) -> int:
    """Nodes of a replicate of the known mean, whose error is to fall with the error bars."""
    return 64 << max(0, int(np.ceil(np.log2(n / 1024) / 2)))


def _work(model: AtInput, size: int) -> int:
    """Multiplications of a forward pass: one for each coordinate where there are no others."""
    return max(model.linear.model.work, size)
