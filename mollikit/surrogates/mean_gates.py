from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.budgets import Budget, Evaluations
from mollikit.engine.streams import Key, Rng
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.perturbation import Perturbation
from mollikit.interruption import with_nothing_to_keep
from mollikit.kernels import Kernel, Law
from mollikit.layout import Layout
from mollikit.oracles import Anchored, GradientOracle, Points
from mollikit.progress import ProgressCallback
from mollikit.samplers import Antithetic, Independent, Sampler
from mollikit.surrogates.audited import Audited
from mollikit.surrogates.forward_moments import ForwardMoments
from mollikit.surrogates.record import BiasedEstimate, SurrogateMap
from mollikit.views import ViewLike

Held = Mapping[str, NDArray[Any]]


class ModelAtInput(Protocol):
    """A model at one input, made linear by averages over its forward passes."""

    @property
    def rows(self) -> int:
        """Rows of one forward pass; a group of the sampler that has more is passed whole."""
        ...

    @property
    def made_linear(self) -> Sequence[str]:
        """Operators that averages stand for."""
        ...

    def moments(self, points: Points, held: Held) -> ForwardMoments:
        """Average over the rows of one batch."""
        ...

    def gradient(self, moments: ForwardMoments) -> Points:
        """One backward pass: the gradient (1, *shape), in the form of the points."""
        ...


@dataclass(frozen=True)
class MeanGatesOf(ABC):
    """Mean gates but for what a framework does: `mollikit_onnx.MeanGates`, `mollikit_torch.MeanGates`."""

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

    @abstractmethod
    def _check(self, oracle: GradientOracle) -> None:
        """Raise TypeError where the oracle's model cannot be looked into."""

    @abstractmethod
    def _at_input(self, oracle: Any, points: Points, held: Held) -> ModelAtInput:
        """Look into the model at one input, a batch of a single row."""

    @property
    def cost(self) -> float:
        """Gradients that a map costs: a third for each forward pass, and one for the pass back."""
        return self.forwards / 3 + 1

    @final
    def estimate(
        self,
        oracle: GradientOracle,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        audit: Budget = Evaluations(16),  # noqa: B008 - frozen
        rng: Rng = None,
        progress: ProgressCallback | None = None,
    ) -> BiasedEstimate:
        """Estimate the smoothed gradient, and its risk from a few unbiased gradients.

        Parameters
        ----------
        oracle, inputs, held, views, rng, progress
            As in `mollikit.Audited.estimate`.
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
        return audited.estimate(
            oracle, inputs, held=held, views=views, budget=budget, rng=rng, progress=progress
        )

    @final
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
            If an argument does not fit, before the model is called; or, by the adapter's
            ``NoMeanGateError``, if a nonlinear operator of the model has no mean gate.
        FloatingPointError
            If an average over the passes is NaN or infinite.
        """
        began = time.perf_counter()
        self._check(oracle)
        layout, key = Layout.of(inputs), Key.of(rng)
        if isinstance(oracle, Anchored):
            form = inputs if isinstance(inputs, Mapping) else np.asarray(inputs)
            oracle = oracle.anchored(
                form, **{name: np.asarray(value) for name, value in (held or {}).items()}
            )
        perturbation = Perturbation.of(inputs, layout, self.inputs)
        model, moments = self._averaged(oracle, perturbation, held or {}, key)
        flat = layout.gradients(model.gradient(moments), 1)[0].astype(np.float64)
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
                "made_linear": list(model.made_linear),
                "seconds": time.perf_counter() - began,
            },
        )

    def _averaged(
        self, oracle: GradientOracle, perturbation: Perturbation, held: Mapping[str, ArrayLike], key: Key
    ) -> tuple[ModelAtInput, ForwardMoments]:
        """Look into an anchored model and average over its forward passes."""
        layout, size = perturbation.layout, self.sampler.group_size(perturbation.dimension)
        groups = self.forwards // size
        self.sampler.check(perturbation.dimension)
        self.sampler.check_grid(perturbation.shape)
        if groups < 1:
            raise ValueError(f"MeanGates: {self.forwards} passes hold no group of {size} points; give more")
        arrays = {name: np.asarray(value) for name, value in held.items()}
        clean = layout.points(perturbation.base[None])
        model = self._at_input(oracle, clean, {name: value[None] for name, value in arrays.items()})
        batches = -(-groups // max(1, model.rows // size))
        moments: ForwardMoments | None = None
        for k in range(batches):  # of about equal sizes
            points, rows = self._drawn(perturbation, key, k * groups // batches, (k + 1) * groups // batches)
            beside = {name: np.broadcast_to(value, (rows, *value.shape)) for name, value in arrays.items()}
            with with_nothing_to_keep():
                batch = model.moments(points, beside)
            moments = batch if moments is None else moments.merged(batch)
        assert moments is not None
        if (bad := moments.not_finite()) is not None:
            raise FloatingPointError(
                f"MeanGates: the average {bad!r} is NaN or infinite: the model overflows there, or a "
                "smaller scale is needed"
            )
        return model, moments

    def _drawn(self, p: Perturbation, key: Key, start: int, stop: int) -> tuple[Points, int]:
        """Points of groups start .. stop - 1, and their number."""
        steps = p.steps(key.groups(self.sampler, start, stop, p.shape, p.base.dtype, p.view))
        if p.weights(steps) is not None:
            raise ValueError(
                "MeanGates: importance weights are not carried through the gates; give the kernel itself"
            )
        return p.layout.points(p.moved(steps, len(steps))), len(steps)
