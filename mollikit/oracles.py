from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    from mollikit.estimators.base import Setting
    from mollikit.moments import Tally

Array = NDArray[Any]
# A batch of inputs: an array (m, *shape), or a mapping of such arrays by input name.
Points = Array | Mapping[str, Array]


@runtime_checkable
class ValueOracle(Protocol):
    """A model as a function: one scalar for each row of a batch of points."""

    def value(self, points: Any, **held: Array) -> Array:
        """Values, shape (m,), of the m points; ``held`` arrays travel with their rows, unperturbed."""
        ...


@runtime_checkable
class GradientOracle(Protocol):
    """A model as a differentiable function: values and gradients of a batch of points.

    Anything with this method is an oracle. The gradient has the points' own form: an array
    (m, *shape), or a mapping of arrays by input name. An oracle that gets the gradient without
    the value returns None for the value.
    """

    def value_and_gradient(self, points: Any, **held: Array) -> tuple[Array | None, Any]:
        """Values (m,), or None, and gradients of the m points; row k depends on row k alone."""
        ...


@runtime_checkable
class Multitarget(Protocol):
    """An oracle that tells of several elements of its output after one forward pass."""

    def values_and_gradients(
        self, points: Any, targets: Any, **held: Array
    ) -> tuple[Array | None, Sequence[Any]]:
        """Values (K, m), or None, and K gradients in the points' own form, by as many backward passes.

        ``targets`` are integers (K,), or (K, n_axes) where a row of the output has several axes, and may
        hold one twice. Entry k is what `GradientOracle` gives where ``targets[k]`` is held with every row.
        """
        ...


@runtime_checkable
class Predicting(Protocol):
    """An oracle that shows the outputs of its model, of which it differentiates one."""

    def predict(self, points: Any, **held: Array) -> Array:
        """Outputs (m, *output_shape) of the model on a batch of points."""
        ...


@runtime_checkable
class Anchored(Protocol):
    """An oracle with choices to be made on the clean input, such as ``target="top"``."""

    def anchored(self, inputs: Any, **held: Array) -> GradientOracle:
        """Return the oracle with those choices fixed; ``inputs`` is one input (*shape), no batch axis."""
        ...


@runtime_checkable
class Reweightable(Protocol):
    """An oracle whose weights may be smoothed: it can be had again with other tensors in their place.

    Estimators draw the tensors and call what they get back; the model itself is never written, so any
    number of such oracles may live and be called at once, from any threads.
    """

    @property
    def weights(self) -> Mapping[str, Array]:
        """The model's learnt parameters of floats, by name, as the model has them now; not to be written.

        They are what may be smoothed. Normalisation statistics (running means and variances), other
        buffers and constants are part of the model and not among them. The name is the address of a
        tensor's random numbers: two forms of a network that name and lay out its tensors alike are
        perturbed alike by one seed. Reading it costs no copy where the framework can show its memory.
        """
        ...

    def reweighted(self, weights: Mapping[str, Array]) -> GradientOracle:
        """Return this oracle with these tensors in the place of those of the same names.

        Names that are left out keep the model's own. The result may use the arrays' memory, which the
        caller leaves alone while it lives; making it is cheap beside a gradient.

        Raises
        ------
        ValueError
            A name is not among `weights`, or a shape is not that of the model's tensor.
        """
        ...


@runtime_checkable
class Resident(Protocol):
    """An oracle that can work through a block where its model lives, so that no points cross to the host.

    `Pathwise` then hands it ranges of groups: it draws the points from its device's own generator, keyed
    by (seed, item, group) as on the host (the same law, other bits), moves the input, differentiates,
    and reduces the gradients to the moments of a `Tally`, which are all that comes back.
    """

    @property
    def lives_on(self) -> str | None:
        """The device on which it draws, such as "cuda:0"; None where it leaves that to the host."""
        ...

    def check_setting(self, setting: Setting) -> None:
        """Raise ValueError, with the mend, where what is asked for cannot be done on the device."""
        ...

    def tallies(self, settings: Sequence[Setting], start: int, stop: int, rows: int) -> Sequence[Tally]:
        """Tally groups start .. stop - 1 of each setting, with ``rows`` rows in each call of the model.

        Several settings are rows of a batch whose weights are smoothed, which share each draw of them, or
        targets of one input at the same points, alike in all but the held ``target``.
        """
        ...


@runtime_checkable
class ModelFile(Protocol):
    """What the command line needs of a model opened from a file (entry points ``mollikit.models``)."""

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input to be smoothed, without the batch axis; None where the model leaves it open."""
        ...

    def predict(self, points: Any, **held: Array) -> Array:
        """Outputs (m, *output_shape) of the model on a batch of points."""
        ...

    def value_and_gradient(self, points: Any, **held: Array) -> tuple[Array | None, Any]:
        """As in `GradientOracle`."""
        ...


def named(thing: object) -> str:
    """How a thing tells of itself; of one that does not, its class, and not where it lies in memory."""
    told = type(thing).__repr__ is not object.__repr__
    return repr(thing) if told else f"{type(thing).__module__}.{type(thing).__qualname__}"
