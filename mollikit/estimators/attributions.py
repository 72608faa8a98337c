from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from mollikit.oracles import Anchored, Array, GradientOracle, Multitarget, Reweightable, named


@runtime_checkable
class Attributing(Protocol):
    """An oracle that gives something else in the gradient's place, and says what."""

    @property
    def attribution(self) -> str:
        """What it gives, in words or a formula."""
        ...


@dataclass(frozen=True, eq=False)
class PerSample(ABC):
    """A model with a per-sample attribution in the gradient's place, to be smoothed the same way."""

    oracle: GradientOracle

    def __post_init__(self) -> None:
        if not isinstance(self.oracle, GradientOracle):
            raise TypeError(
                f"{type(self).__name__}: {type(self.oracle).__name__} has no value_and_gradient(points)"
            )

    @property
    @abstractmethod
    def attribution(self) -> str:
        """What is smoothed, in words or a formula."""

    @abstractmethod
    def _attributions(self, points: Any, gradients: Any) -> Any:
        """Attributions, of the gradients' form, of the points."""

    def anchored(self, inputs: Any, **held: Array) -> Self:
        """Let the model make its choices on the clean input, where it has any to make."""
        if not isinstance(self.oracle, Anchored):
            return self
        return replace(self, oracle=self.oracle.anchored(inputs, **held))

    @property
    def weights(self) -> Mapping[str, Array]:
        """Those of the model; empty where it shows none."""
        return self.oracle.weights if isinstance(self.oracle, Reweightable) else {}

    def reweighted(self, weights: Mapping[str, Array]) -> Self:
        """Return the attribution of the model with other weights."""
        if not isinstance(self.oracle, Reweightable):
            raise ValueError(f"{named(self.oracle)} shows no weights that could be replaced")
        return replace(self, oracle=self.oracle.reweighted(weights))

    def value_and_gradient(self, points: Any, **held: Array) -> tuple[Array | None, Any]:
        """Values (m,), or None, and attributions of the m points."""
        values, gradients = self.oracle.value_and_gradient(points, **held)
        return values, self._attributions(points, gradients)

    def values_and_gradients(
        self, points: Any, targets: Any, **held: Array
    ) -> tuple[Array | None, Sequence[Any]]:
        """Values (K, m), or None, and attributions to the m points of each of K targets."""
        if not isinstance(self.oracle, Multitarget):
            raise TypeError(f"{named(self.oracle)} has no values_and_gradients(points, targets)")
        values, gradients = self.oracle.values_and_gradients(points, targets, **held)
        return values, [self._attributions(points, each) for each in gradients]


def tells_of_several(oracle: object) -> bool:
    """Whether an oracle is `Multitarget`; of an attribution, whether the model behind it is."""
    return (
        tells_of_several(oracle.oracle) if isinstance(oracle, PerSample) else isinstance(oracle, Multitarget)
    )


@dataclass(frozen=True, eq=False)
class Attribution(PerSample):
    """A model with any per-sample attribution in the gradient's place, to be smoothed the same way.

    Given to `Pathwise`, the estimand is E[A(x + s t, grad f(x + s t))], t ~ K, and all that holds of
    gradients holds of it: views, error bars, budgets, second moments. ``provenance["estimand"]`` says so.

    Parameters
    ----------
    oracle : GradientOracle
    function : callable
        From points (m, *shape) and gradients of the same form to attributions of that form (mappings by
        input name, for a model of several inputs), each row by itself.
    name : str, optional
        What the provenance calls it; by default the function's own name.

    Raises
    ------
    TypeError, ValueError
        If the oracle has no gradients; or if the function returns what has not their form.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> squared = mk.Attribution(Square(), lambda points, gradients: gradients**2, "squared gradient")
    >>> smooth = mk.Pathwise(mk.Gaussian(0.5))
    >>> estimate = smooth.estimate(squared, np.array([1.0, 2.0]), budget=mk.Evaluations(1 << 16), rng=0)
    >>> estimate.gradient.round(1)               # 4 (x^2 + 0.5^2)
    array([ 5., 17.])
    >>> print(estimate.provenance["estimand"])
    gradient of the smoothed function, with in the gradient's place: squared gradient
    """

    function: Callable[[Any, Any], Any]
    name: str | None = None

    def __repr__(self) -> str:
        return f"Attribution({named(self.oracle)}, {self.attribution!r})"

    @property
    def attribution(self) -> str:
        function = self.function
        return self.name or str(getattr(function, "__qualname__", type(function).__name__))

    def _attributions(self, points: Any, gradients: Any) -> Any:
        found = self.function(points, gradients)
        if _shapes(found) != _shapes(gradients):
            raise ValueError(
                f"the attribution {self.attribution} has the shape {_shapes(found)} for gradients of shape "
                f"{_shapes(gradients)}: it keeps their form, and a view of the estimate reduces it"
            )
        return found


@dataclass(frozen=True, eq=False)
class InputTimesGradient(PerSample):
    """A model with (x - baseline) * gradient in the gradient's place, x being the *noisy* input.

    Each sample's attribution is averaged, as Captum's NoiseTunnel does. To multiply the clean input by the
    smoothed gradient, multiply the finished estimate.

    Source: Shrikumar et al. 2016, "Not just a black box: learning important features through propagating
    activation differences".

    Parameters
    ----------
    oracle : GradientOracle
    baseline : float, array that broadcasts to the input, or mapping of them by input name
        In the units of the model's input; zero by default, and for inputs that a mapping leaves out.

    Raises
    ------
    TypeError, ValueError
        If the oracle has no gradients; or if a baseline does not fit the points.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> estimate = mk.Pathwise(mk.Gaussian(0.5)).estimate(
    ...     mk.InputTimesGradient(Square()), np.array([1.0, 2.0]), budget=mk.Evaluations(1 << 16), rng=0)
    >>> estimate.gradient.round(1)               # 2 (x^2 + 0.5^2)
    array([2.5, 8.5])
    """

    baseline: ArrayLike | Mapping[str, ArrayLike] = 0.0

    def __repr__(self) -> str:
        return f"InputTimesGradient({named(self.oracle)}, baseline={_told(self.baseline)})"

    @property
    def attribution(self) -> str:
        return f"(input - baseline) * gradient, baseline {_told(self.baseline)}"

    def _attributions(self, points: Any, gradients: Any) -> Any:
        if not isinstance(points, Mapping):
            if isinstance(self.baseline, Mapping):
                raise TypeError("InputTimesGradient: baselines are given by name, and there is one input")
            return _difference(points, self.baseline, "the input") * gradients
        given = self.baseline if isinstance(self.baseline, Mapping) else dict.fromkeys(points, self.baseline)
        if unknown := given.keys() - points.keys():
            raise ValueError(
                f"InputTimesGradient: a baseline is given for {sorted(unknown)}, and the inputs are "
                f"{sorted(points)}"
            )
        return {
            name: _difference(part, given.get(name, 0.0), f"input {name!r}") * gradients[name]
            for name, part in points.items()
        }


def _difference(points: Array, baseline: ArrayLike, label: str) -> Array:
    given = np.asarray(baseline, dtype=points.dtype)
    try:
        return np.asarray(points - np.broadcast_to(given, points.shape[1:]))
    except ValueError:
        raise ValueError(
            f"InputTimesGradient: the baseline of {label} has shape {given.shape}, which does not broadcast "
            f"to {points.shape[1:]}"
        ) from None


def _told(baseline: ArrayLike | Mapping[str, ArrayLike]) -> str:
    """A number as it is; of an array its shape, extremes and mean, which tell one from another."""
    if isinstance(baseline, Mapping):
        return "{" + ", ".join(f"{name}: {_told(part)}" for name, part in baseline.items()) + "}"
    values = np.asarray(baseline)
    if values.ndim == 0:
        return f"{float(values):g}"
    return f"<array {values.shape} of {values.min():.6g} to {values.max():.6g}, mean {values.mean():.12g}>"


def _shapes(form: Any) -> Any:
    if isinstance(form, Mapping):
        return {name: np.shape(part) for name, part in form.items()}
    return np.shape(form)
