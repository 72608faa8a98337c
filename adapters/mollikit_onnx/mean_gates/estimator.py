from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimators import Pathwise
from mollikit.estimators.perturbation import Perturbation
from mollikit.interruption import with_nothing_to_keep
from mollikit.kernels import Kernel, Law
from mollikit.layout import Layout
from mollikit.oracles import GradientOracle
from mollikit.samplers import Antithetic, Independent, Sampler
from mollikit.surrogates import Audited, BiasedEstimate, SurrogateMap
from mollikit.views import ViewLike
from mollikit_onnx.mean_gates.compiled import Compiled, compiled
from mollikit_onnx.mean_gates.moments import Array, ForwardMoments
from mollikit_onnx.oracle import OnnxOracle
from mollikit_onnx.sessions import Sessions
from mollikit_onnx.targets import coordinates

# Rows of a forward pass; a group of more is passed whole.
_ROWS = 8


@dataclass(frozen=True)
class MeanGates:
    """One backward pass through a model made linear by averages over noisy forward passes. Biased.

    The gradient of a deep net is a product of weights and of *gates*, the derivatives of its nonlinearities.
    Its mean over noise is replaced by the product of the mean gates: forward passes alone see the noise,
    and one backward pass does. What is lost is the correlation of the gates with each other, which is the
    bias; with a single layer of gates there is none. On EfficientNet-Lite0 32 passes, the cost of 12
    gradients, err by 28%, where some 450 gradients are needed to err by as much without bias.

    A gate is the slope of the line that fits the nonlinearity best, Cov(y, z) / Var(z): for a normal z it is
    E[dy/dz] (Stein's identity), and of all slopes it leaves the least to what is neglected. It is
    regressed from the passes, and drawn to the slope that a normal z of the same mean and variance has, as
    if by ``prior`` more passes. Chains of elementwise operators (x * sigmoid(x)) have one gate; MaxPool and
    Max choose as often as they did; products of two tensors have the mean of each factor, Softmax its mean
    probabilities. A nonlinear operator that is none of these is refused by name.

    Source: "Smoothed Differentiation Efficiently Mitigates Shattered Gradients in Explanations" (SmoothDiff,
    2025), for gates as averaged derivatives; Bussgang 1952, "Crosscorrelation functions of
    amplitude-distorted Gaussian signals", for the slope.

    Parameters
    ----------
    inputs : Law or mapping of Law by input name
        With which density each input is smoothed. It has a variance, and no importance weights.
    forwards : int
        Forward passes, rounded down to whole groups of the sampler; each counts a third of a gradient.
    sampler : Sampler
        How their points are drawn; pairs of opposite points by default, which need fewer by half.
    prior : float
        Passes for which the slope of a normal law counts; 64 did best on EfficientNet-Lite0, at any number.

    Raises
    ------
    ValueError
        If there are fewer than 4 passes, or the prior is not positive.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> from onnx import parser
    >>> from mollikit_onnx import MeanGates, OnnxOracle
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
    ...     'net (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }')
    >>> gates = MeanGates(mk.Gaussian(0.5), forwards=64)
    >>> x = np.array([0.0, 2.0, -2.0], np.float32)
    >>> gates.surrogate(OnnxOracle(model, target=0), x, rng=0).gradient.round(2)
    array([0.5, 0. , 0. ])
    """

    inputs: Law | Mapping[str, Law]
    forwards: int = 64
    sampler: Sampler = field(default_factory=Antithetic)
    prior: float = field(default=64.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.forwards < 4:
            raise ValueError(f"MeanGates: forwards={self.forwards!r}; a variance takes at least 4 passes")
        if not (np.isfinite(self.prior) and self.prior > 0):
            raise ValueError(f"MeanGates: prior={self.prior!r}; it counts passes, such as 64")
        laws = self.inputs.values() if isinstance(self.inputs, Mapping) else [self.inputs]
        for law in laws:
            if isinstance(law, Kernel) and not np.isfinite(law.variance):
                raise ValueError(f"MeanGates: {law!r} has no variance, and the gates are regressed by it")

    @property
    def cost(self) -> float:
        """Gradients that a map costs: a third for each forward pass, and one for the pass back."""
        return self.forwards / 3 + 1

    def estimate(
        self,
        oracle: OnnxOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        audit: Budget = Evaluations(16),  # noqa: B008 - frozen
        rng: Rng = None,
    ) -> BiasedEstimate:
        """Estimate the smoothed gradient, and its risk from a few unbiased gradients.

        Parameters
        ----------
        oracle, inputs, held, views, rng
            As in `mollikit.Pathwise.estimate`.
        audit : Evaluations
            Gradients for the risk; `mollikit.Combined` uses them for the map as well.

        Returns
        -------
        BiasedEstimate
        """
        if not isinstance(audit, Evaluations):
            raise TypeError(f"MeanGates: audit={audit!r}; give Evaluations(16) or more")
        audited = Audited(Pathwise(self.inputs, Independent()), self)
        budget = Evaluations(audit.n + int(np.ceil(self.cost)))
        return audited.estimate(oracle, inputs, held=held, views=views, budget=budget, rng=rng)

    def surrogate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        rng: Rng = None,
    ) -> SurrogateMap:
        """Make the map, without its risk.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, before the model is called.
        mollikit_onnx.mean_gates.NoMeanGateError
            If a nonlinear operator of the model has no mean gate.
        FloatingPointError
            If an average over the passes is NaN or infinite.
        """
        began = time.perf_counter()
        sessions = oracle._sessions if isinstance(oracle, OnnxOracle) else None
        if not isinstance(oracle, OnnxOracle) or not isinstance(sessions, Sessions):
            raise TypeError(
                "MeanGates works inside of an ONNX model: give an OnnxOracle with the model's own weights, "
                f"not {type(oracle).__name__}"
            )
        layout, key = Layout.of(inputs), Key.of(rng)
        perturbation = Perturbation.of(inputs, layout, self.inputs)
        size = self.sampler.group_size(perturbation.dimension)
        groups = self.forwards // size
        self.sampler.check(perturbation.dimension)
        self.sampler.check_grid(perturbation.shape)
        if groups < 1:
            raise ValueError(f"MeanGates: {self.forwards} passes hold no group of {size} points; give more")
        arrays = {name: np.asarray(value) for name, value in (held or {}).items()}
        form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
        oracle = oracle.anchored(form, **arrays)
        target = arrays.pop("target", None)
        clean, _ = oracle._feed(
            layout.points(perturbation.base[None]), {k: v[None] for k, v in arrays.items()}
        )
        output = sessions.blueprint.output
        by_row = None if target is None else target[None]
        where = tuple(int(k) for k in coordinates(1, oracle._target, by_row, output)[0])
        row_shape = (1, *(k for k in output.row_shape or () if k is not None))
        if output.row_shape is None or len(row_shape) != len(output.row_shape) + 1:
            row_shape = sessions.outputs(clean).shape
        shapes = {name: tuple(value.shape) for name, value in clean.items()}
        linear = compiled(sessions, shapes, self.prior, row_shape)
        per_batch = 1 if oracle._signature.row_by_row else max(1, _ROWS // size)
        moments: ForwardMoments | None = None
        for start in range(0, groups, per_batch):
            batch = self._averages(
                linear, oracle, perturbation, key, arrays, start, min(start + per_batch, groups)
            )
            moments = batch if moments is None else moments.merged(batch, linear.model)
        assert moments is not None
        bad = [name for name, value in moments.values.items() if not np.isfinite(value).all()]
        if bad:
            raise FloatingPointError(
                f"MeanGates: the average {bad[0]!r} is NaN or infinite: the model overflows there, or a "
                "smaller scale is needed"
            )
        gradients = dict(zip(linear.wrt, linear.gradients(moments, clean, where), strict=True))
        answer = gradients if isinstance(inputs, Mapping) else gradients[linear.wrt[0]]
        flat = layout.gradients(answer, 1)[0].astype(np.float64)
        return SurrogateMap(
            gradient=layout.unflatten(flat),
            n_evaluations=moments.n / 3 + 1,
            biased="mean gates neglect how gates correlate",
            provenance={
                "surrogate": repr(self),
                "forwards": moments.n,
                "seed": key.seed,
                "item": key.item,
                "oracle": repr(oracle),
                "made_linear": list(linear.model.stood_in),
                "seconds": time.perf_counter() - began,
            },
        )

    def _averages(
        self,
        linear: Compiled,
        oracle: OnnxOracle,
        perturbation: Perturbation,
        key: Key,
        held: Mapping[str, Array],
        start: int,
        stop: int,
    ) -> ForwardMoments:
        p = perturbation
        steps = p.steps(key.groups(self.sampler, start, stop, p.shape, p.base.dtype, p.view))
        if p.weights(steps) is not None:
            raise ValueError(
                "MeanGates: importance weights are not carried through the gates; give the kernel itself"
            )
        rows = len(steps)
        points: Any = p.layout.points(p.moved(steps, rows))
        beside = {name: np.broadcast_to(value, (rows, *value.shape)) for name, value in held.items()}
        feed, _ = oracle._feed(points, beside)
        with with_nothing_to_keep():
            if not oracle._signature.row_by_row:
                return linear.averages(feed, rows)
            total: ForwardMoments | None = None
            for k in range(rows):
                one = linear.averages({name: value[k : k + 1] for name, value in feed.items()}, 1)
                total = one if total is None else total.merged(one, linear.model)
            assert total is not None
            return total
