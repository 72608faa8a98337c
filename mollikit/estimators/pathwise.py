from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, final

from numpy.typing import ArrayLike

from mollikit.budgets import Budget, as_budget
from mollikit.engine.run import Execution, SharedTask
from mollikit.engine.streams import Key, Rng
from mollikit.estimate import Estimate
from mollikit.estimators.answers import answers_of
from mollikit.estimators.base import Estimator, Held, Setting
from mollikit.estimators.nested import Nested, NestedTask
from mollikit.estimators.perturbation import Perturbation
from mollikit.estimators.several import of_targets
from mollikit.estimators.tallies import tally_of_points
from mollikit.estimators.weights import WeightLaws, WeightPerturbation
from mollikit.kernels import Law
from mollikit.layout import Layout
from mollikit.moments import Tally
from mollikit.oracles import GradientOracle, Multitarget, Resident, Reweightable
from mollikit.progress import ProgressCallback
from mollikit.samplers import Antithetic, Independent, Recentred, Sampler
from mollikit.targets import Targets
from mollikit.views import ViewLike


@dataclass(frozen=True)
class Pathwise(Estimator):
    """The mean of the gradient over perturbed inputs: grad f_K(x) = E[grad f(x + s t)], t ~ K.

    It is unbiased where f is locally Lipschitz; a model that jumps (a hard threshold, an argmax) has
    gradients that miss its jumps and needs an estimator from values.

    The weights may be smoothed as well, or instead: grad E[f(x + s t; theta + r u)]. Each draw of the
    weights, a *model*, is shared by ``inputs_per_model`` inputs, and by all rows of a batch. Points under
    one model depend on each other, so that error bars count the groups of models.

    Source: arXiv 2407.00371, "Axiomatization of Gradient Smoothing in Neural Networks"; the name is that
    of Mohamed et al. 2020, "Monte Carlo Gradient Estimation in Machine Learning", section 5. Weights:
    Bykov et al. 2022, "NoiseGrad: enhancing explanations by introducing stochasticity to model weights".

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name, optional
        With which density each input is smoothed; inputs that a mapping leaves out are not moved.
    sampler : Sampler
        How the points are drawn; `Recentred` in groups of 8 by default.
    weights : Kernel or mapping of Kernel by pattern, optional
        With which density the model's weights are smoothed, as the oracle names them (`Reweightable`):
        all of them, or those whose names match a pattern (``{"head.*": None, "*.weight": kernel}``), of
        which the first that matches decides; None holds. ``OfMagnitude`` makes the noise multiplicative,
        theta (1 + s t), a width additive. Weights whose widths are all zero are held.
    weights_sampler : Sampler, optional
        `Independent`, `Antithetic` or `Recentred`; antithetic pairs by default.
    inputs_per_model : int, optional
        Inputs under each draw of the weights, in whole groups of the sampler; one of its groups by
        default. Where the inputs are not smoothed there is one.
    block : int, optional
        Rows in each call of the model, in whole groups; by default it follows the input's size. With the
        weights smoothed, rows in a block, of which a call holds no more than there are under one model.
    second_moments : bool
        Tell the mean square and the variance of the gradients too (SmoothGrad-squared and VarGrad), of the
        map and of each view, as ``estimate.mean_square`` and ``estimate.variance``. Budgets may look at
        them: ``RelativeError(0.1, view="variance")``.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> smooth = mk.Pathwise(inputs=mk.Gaussian(0.1), sampler=mk.Recentred(8))
    >>> estimate = smooth.estimate(Square(), np.array([1.0, 2.0]), budget=mk.Evaluations(64), rng=0)
    >>> estimate.gradient.round(6)               # linear gradients are exact under recentred points
    array([2., 4.])
    """

    inputs: Law | Mapping[str, Law] | None = None
    sampler: Sampler = field(default_factory=Recentred)
    weights: WeightLaws | None = field(default=None, kw_only=True)
    weights_sampler: Sampler | None = field(default=None, kw_only=True)
    inputs_per_model: int | None = field(default=None, kw_only=True)
    second_moments: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        count = self.inputs_per_model
        if self.inputs is None and self.weights is None:
            raise TypeError("Pathwise smooths the inputs, the weights, or both: give inputs= or weights=")
        if not isinstance(self.sampler, Sampler):
            raise TypeError(
                f"sampler={self.sampler!r} is not a sampler: give Recentred(8), Independent() or another"
            )
        if self.weights is None and (count is not None or self.weights_sampler is not None):
            raise ValueError("inputs_per_model= and weights_sampler= are for smoothed weights: give weights=")
        if count is not None and count < 1:
            raise ValueError(f"inputs_per_model={count}: a draw of the weights is used at least once")
        if self.inputs is None and count not in (None, 1):
            raise ValueError(
                f"inputs_per_model={count}: inputs that are not smoothed are the same each time; give "
                "inputs=, or leave it out"
            )

    @property
    def _models(self) -> Sampler:
        return self.weights_sampler or Antithetic()

    @property
    def _whole_groups(self) -> bool:
        return self.weights is None

    @final
    def estimate_targets(
        self,
        oracle: Multitarget,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        targets: Targets,
        *,
        held: Mapping[str, ArrayLike] | None = None,
        views: Mapping[str, ViewLike] | None = None,
        budget: Budget | None = None,
        rng: Rng = None,
        executor: Executor | None = None,
        in_flight: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[Estimate]:
        """Estimate the smoothed gradients of several targets at one input, on the same points.

        Each is what ``estimate(..., held={"target": target})`` gives with the same rng and block, to the
        model's rounding, and stops for itself as that does; a block costs one forward pass and a backward
        pass for each target that still runs. ``n_evaluations`` counts points. Each is saved, and gone on with
        by ``estimate(..., held={"target": target}, resume=estimate)``, by itself; ``provenance["target"]``
        tells them apart.

        Arguments are those of `estimate`, but for these.

        Parameters
        ----------
        oracle : Multitarget
            The model, with ``values_and_gradients``.
        targets : sequence of int, or of tuples of int; or Top
            Elements of the output, such as ``[281, 282]``, or the largest on the clean input, ``Top(5)``.
        budget : Budget
            Of each target; the time of a block is shared out among the targets that it served.

        Returns
        -------
        list of Estimate
            In the order of the targets.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; if ``held`` holds a target too.
        Interrupted
            On Ctrl-C, carrying the targets that were finished (``completed``) and those that were not
            (``under_way``).

        Examples
        --------
        >>> import numpy as np, mollikit as mk
        >>> class Powers:                            # outputs x^2 and x^3, summed over the coordinates
        ...     def values_and_gradients(self, points, targets):
        ...         both = [(points**2, 2 * points), (points**3, 3 * points**2)]
        ...         return np.stack([both[t][0].sum(-1) for t in targets]), [both[t][1] for t in targets]
        ...     def value_and_gradient(self, points, target):
        ...         values, (gradients,) = self.values_and_gradients(points, target[:1])
        ...         return values[0], gradients
        >>> square, cube = mk.Pathwise(mk.Gaussian(0.1)).estimate_targets(
        ...     Powers(), np.array([1.0, 2.0]), [0, 1], budget=mk.Evaluations(4096), rng=0)
        >>> square.gradient.round(6), cube.gradient.round(2)   # 2 x, and 3 (x^2 + 0.1^2)
        (array([2., 4.]), array([ 3.03, 12.03]))
        """
        return of_targets(
            self,
            oracle,
            inputs,
            targets,
            held or {},
            views or {},
            as_budget(budget),
            Key.of(rng),
            Execution(executor, in_flight, progress),
        )

    def _groups(self) -> Sampler:
        if self.weights is None:
            return self.sampler
        inner = Independent() if self.inputs is None else self.sampler
        return Nested(inner, self._models.group_size(1), self.inputs_per_model)

    def _perturbation(self, inputs: Any) -> Perturbation:
        if self.inputs is None:
            return Perturbation.still(inputs, Layout.of(inputs))
        return super()._perturbation(inputs)

    def _weights(self, oracle: Any) -> WeightPerturbation | None:
        if self.weights is None:
            return None
        return WeightPerturbation.of(oracle.weights, self.weights, self._models)

    def _streams_second_moments(self) -> bool:
        return self.second_moments

    def _check_oracle(self, oracle: object) -> None:
        if not isinstance(oracle, GradientOracle):
            raise TypeError(
                f"{type(oracle).__name__} has no value_and_gradient(points), whose gradients Pathwise "
                "averages; for a model that gives values alone there are Secant and ScoreFunction"
            )
        if self.weights is not None and not isinstance(oracle, Reweightable):
            raise TypeError(
                f"{type(oracle).__name__} has no weights and reweighted(weights), by which weights are "
                "smoothed: give it these two (mollikit.Reweightable), or smooth the inputs alone"
            )

    def _drawn_on(self, oracle: Any) -> str | None:
        return oracle.lives_on if isinstance(oracle, Resident) else None

    def _probe(self, setting: Setting, points: Any, held: Held) -> None:
        oracle = setting.oracle
        if setting.drawn_on is not None and setting.weights is None:
            oracle.tallies([setting], 0, 1, setting.group_size)
            return
        if setting.weights is not None:
            oracle = oracle.reweighted(setting.weights.group(oracle.weights, setting.key, 0).model(0))
        oracle.value_and_gradient(points, **held)

    @property
    def _shares_draws(self) -> bool:
        return self.weights is not None

    def _shared_task(self, settings: Sequence[Setting], rows: int) -> SharedTask:
        setting = settings[0]
        if setting.drawn_on is not None:
            return ResidentTask(settings, rows)
        if setting.weights is not None:
            return NestedTask(settings, setting.weights, rows)
        return PathwiseTask(settings, rows)


@dataclass(frozen=True)
class ResidentTask:
    """Let the oracle work through the block where its model lives."""

    settings: Sequence[Setting]
    rows: int

    def __call__(self, numbers: Sequence[int], start: int, stop: int) -> Sequence[Tally]:
        asked = [self.settings[k] for k in numbers]
        tallies: Sequence[Tally] = asked[0].oracle.tallies(asked, start, stop, self.rows)
        return tallies


@dataclass(frozen=True)
class PathwiseTask:
    """Draw groups, ask for their gradients in one call, and tally the groups' means.

    Several settings differ in the held target alone.
    """

    settings: Sequence[Setting]
    rows: int

    def __call__(self, numbers: Sequence[int], start: int, stop: int) -> list[Tally]:
        asked = [self.settings[k] for k in numbers]
        s, p = asked[0], asked[0].perturbation
        steps = p.steps(s.key.groups(s.sampler, start, stop, p.shape, p.base.dtype, p.view))
        importance = p.weights(steps)
        return [
            tally_of_points(setting, start, stop, gradients, values, importance)
            for setting, (values, gradients) in zip(
                asked, answers_of(asked, s.oracle, steps, self.rows), strict=True
            )
        ]
