from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mollikit.estimators.bases import Basis
from mollikit.layout import Layout
from mollikit.oracles import Anchored, Array, ValueOracle
from mollikit.views import View


@dataclass(frozen=True)
class Image(View):
    """The image of a gradient by coefficients in the input's space; see `Basis.image`."""

    basis: Basis

    def __call__(self, gradients: Any) -> NDArray[Any]:
        return self.basis.image(np.asarray(gradients))


@dataclass(frozen=True, eq=False)
class InBasis:
    """A black box as a function of the coefficients c of a basis about an input: h(c) = f(x + B c).

    It is an oracle: given to an estimator with its ``origin``, the estimand is the gradient by the
    coefficients of the function smoothed *in the subspace*,

        grad_c E[h(c + s t)] at c = 0  =  B^T E[grad f(x + s B t)],    t ~ K in every coefficient,

    with the scale s in the units of the coefficients. Nothing outside the span of B moves or is smoothed.
    The view ``image`` shows it in the input's space: the orthogonal projection of E[grad f(x + s B t)]
    onto the span, with error bars of its own.

    Parameters
    ----------
    oracle : ValueOracle
    inputs : array (*shape)
        One input; a model of several takes the others in ``held``.
    basis : Basis

    Attributes
    ----------
    origin : ndarray
        The coefficients of the input itself: zeros.
    image : View
        To be given to the estimator in ``views=``.

    Raises
    ------
    TypeError, ValueError
        If the oracle has no values, or the basis is not one of the input's space.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Product:
    ...     def value(self, points): return points.prod((1, 2))
    >>> photo = np.array([[2.0, 3.0], [5.0, 7.0]])
    >>> inside = mk.InBasis(Product(), photo, mk.Superpixels(np.array([[0, 1], [1, 1]]), (2, 2)))
    >>> smooth, views = mk.Secant(mk.Gaussian(0.01)), {"image": inside.image}
    >>> estimate = smooth.estimate(inside, inside.origin, views=views, budget=mk.Evaluations(64), rng=0)
    >>> estimate.gradient.round(0), estimate.views["image"].value.round(0)
    (array([105., 142.]), array([[105.,  47.],
           [ 47.,  47.]]))
    """

    oracle: ValueOracle
    inputs: ArrayLike
    basis: Basis

    def __post_init__(self) -> None:
        if not isinstance(self.oracle, ValueOracle):
            raise TypeError(f"InBasis: {type(self.oracle).__name__} has no value(points)")
        inputs = np.asarray(self.inputs)
        Layout.of(inputs)
        if inputs.shape != self.basis.input_shape:
            raise ValueError(
                f"InBasis: {self.basis} is a basis for inputs of shape {self.basis.input_shape}, and "
                f"this one has {inputs.shape}"
            )
        object.__setattr__(self, "inputs", inputs)

    def __repr__(self) -> str:
        return f"InBasis({self.oracle!r}, {self.basis!r})"

    @property
    def origin(self) -> NDArray[np.float64]:
        return np.zeros(self.basis.shape)

    @property
    def image(self) -> View:
        return Image(self.basis)

    def anchored(self, inputs: Any, **held: Array) -> Any:
        """Let the model make its choices at x + B c, where it has any to make."""
        if not isinstance(self.oracle, Anchored):
            return self
        chosen: Any = self.oracle.anchored(self._points(inputs[None])[0], **held)
        return replace(self, oracle=chosen)

    def value(self, points: Any, **held: Array) -> Array:
        """Values (m,) of the model at x + B c, for coefficients (m, *basis.shape)."""
        return self.oracle.value(self._points(points), **held)

    def _points(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        inputs = np.asarray(self.inputs)
        return np.asarray(inputs + self.basis.expand(coefficients).astype(inputs.dtype, copy=False))
