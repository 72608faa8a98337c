from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from mollikit.batches import Shape, one_row
from mollikit.estimators.answers import by_points
from mollikit.estimators.base import Setting
from mollikit.moments import Tally
from mollikit.oracles import Array, Points
from mollikit.outputs import Output
from mollikit.targeted import Targeted
from mollikit.targets import Target, check_target, read_targets
from mollikit_torch.batches import Batch
from mollikit_torch.layers import check_layer
from mollikit_torch.memory_format import MemoryFormat
from mollikit_torch.passes import Passes
from mollikit_torch.pickling import check_picklable
from mollikit_torch.replicas import Compiled, Function, Replicas, Source
from mollikit_torch.resident import ResidentBlocks, check_resident, tallies
from mollikit_torch.tensors import array_of, tensor_of
from mollikit_torch.weights import replacements, shown


class TorchOracle(Targeted):
    """A PyTorch model as an oracle: values and gradients of one scalar a row.

    The oracle calls copies of the module, one a thread, that share its weights; nothing of the caller's
    module is ever written, and weights trained in place are seen by the next call. Modes and hooks are
    those at the time the oracle was made. A plain function is called as it is: what it closes over is its own
    affair. The caller's grad mode, inference mode and autocast do not reach the model. The oracle draws no
    random numbers; a model that does so even in eval mode takes them from PyTorch's own generators.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called with an array of points as its first argument, or with a mapping of points by keyword, and
        with the held arrays by keyword. A module must be in eval mode.
    target : int, tuple of int, callable, "top" or None
        What to explain of an output (m, ...): a class of an output (m, n_classes); an index per axis
        behind the batch; a function from the output to one scalar a row, shape (m,); None where there is
        one already. "top" is the largest element on the clean input, fixed by `anchored`. An array ``target``
        held with the rows, integers (m,) or (m, n_axes), takes precedence over an index.
    output : int, str or callable, optional
        Which of several outputs: its place, its key or attribute, or a function that takes it out.
    layer : str, optional
        Name of a submodule whose output the points replace, such as the embeddings of a token model; all
        of the model's arguments are held then. `layer_output` gives the points of an input.
    device : torch.device or str, optional
        Where the model runs, by default where its parameters are. On another device the weights are copied.
    dtype : torch.dtype, optional
        Of the points and held floats, by default that of the module's parameters; a function gets the points'
        own.
    memory_format : torch.memory_format, optional
        Of inputs with 4 axes. By default ``channels_last`` on the CPU, unless the model cannot take
        it (a ``view`` of its features), and contiguous elsewhere.
    autocast : torch.dtype, optional
        Run under autocast to this dtype; gradients lose digits accordingly.
    compile : bool
        Compile the copy by torch.compile, at the first call of each process.
    input_shapes : mapping of tuple, optional
        Shapes of the model's smoothed inputs by name, without the batch axis, None where open. Points are
        checked against them, and come by keyword.
    resident : bool, optional
        Draw, move and reduce the points of `Pathwise` on the model's device, so that no batch of points
        crosses to the host: the same law by PyTorch's own generator, hence other bits. By default so on
        CUDA and its like, and not on the CPU.

    Raises
    ------
    ValueError
        A layer is in train mode, a name or a target is not the model's, or weights have no data yet.
    TypeError
        The model is neither, cannot be copied, or the target is of no known kind.

    Examples
    --------
    >>> import numpy as np, torch
    >>> oracle = TorchOracle(torch.nn.Sequential(torch.nn.Linear(3, 2)).eval(), target=1)
    >>> values, gradients = oracle.value_and_gradient(np.ones((4, 3), np.float32))
    >>> values.shape, gradients.shape
    ((4,), (4, 3))
    """

    def __init__(
        self,
        model: nn.Module | Callable[..., Any],
        *,
        target: Target | Literal["top"] = None,
        output: Output = None,
        layer: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
        autocast: torch.dtype | None = None,
        compile: bool = False,  # noqa: A002 - torch's own word for it
        input_shapes: Mapping[str, Shape] | None = None,
        resident: bool | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"model is a torch.nn.Module or a function, and got a {type(model).__name__}")
        check_target(target)
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype={dtype}: points are floats")
        if (layer is not None or compile) and not isinstance(model, nn.Module):
            raise ValueError("layer= and compile= are for a torch.nn.Module, and the model is a function")
        if layer is not None and compile:
            raise ValueError("layer= needs hooks that a compiled model does not have: leave compile= out")
        wanted = None if device is None else torch.device(device)
        source: Source
        if isinstance(model, nn.Module):
            if layer is not None:
                check_layer(model, layer)
            source = (Compiled if compile else Replicas)(model, wanted)
            tensors = [*source.master.parameters(), *source.master.buffers()]
            floats = (t.dtype for t in tensors if t.is_floating_point())
            dtype = dtype or next(floats, None)
            wanted = wanted or next((t.device for t in tensors), None)
        else:
            source = Function(model)
        self._name = type(model).__name__ if isinstance(model, nn.Module) else _name(model)
        self._device, self._dtype = wanted or torch.device("cpu"), dtype
        form = MemoryFormat(memory_format, self._device)
        self._passes = Passes(source, target, output, layer, self._device, form, autocast)
        self._resident = self._device.type not in ("cpu", "mps") if resident is None else resident
        self._compiled = compile
        self._shapes: dict[str, Shape] = {k: tuple(v) for k, v in (input_shapes or {}).items()}

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        """Shape of each input to be smoothed, without the batch axis, where it was given; empty otherwise."""
        return dict(self._shapes)

    @property
    def weights(self) -> Mapping[str, Array]:
        """The module's parameters of floats by name, read-only; on the CPU they are its own memory.

        Of parametrised layers (weight_norm and the like) they are the tensors that are trained. Buffers, such
        as the running statistics of BatchNorm, are not among them. A plain function shows none. bfloat16,
        which NumPy lacks, is shown as float32. Under ``compile=True`` calls with other weights take turns.
        """
        return shown(self._passes.source.weights)

    def reweighted(self, weights: Mapping[str, Array]) -> TorchOracle:
        """Return this oracle with other tensors in the place of some weights; the module is not touched.

        The arrays' memory is used where dtypes and the device allow.

        Raises
        ------
        ValueError
            There is no such weight, a shape is not its own, or the model is a function.
        """
        source = self._passes.source
        return self._with(source=source.reweighted(replacements(weights, source.weights)))

    @property
    def lives_on(self) -> str | None:
        """The device on which `Pathwise` has the points drawn; None where the host draws them."""
        return str(self._device) if self._resident else None

    def check_setting(self, setting: Setting) -> None:
        """Raise ValueError where `Pathwise` is asked for what is not done on the device."""
        check_resident(setting, self._device)
        held = one_row(setting.held)
        held.pop("target", None)
        self._batch(setting.perturbation.layout.points(setting.perturbation.base[None]), held)

    def tallies(self, settings: Sequence[Setting], start: int, stop: int, rows: int) -> list[Tally]:
        """Tally groups start .. stop - 1 of `Pathwise` on the device; moments alone come back."""
        blocks = [alike[0].oracle._resident_blocks(alike, rows) for alike in by_points(settings)]
        own = self._passes.source.weights
        return tallies(blocks, start, stop, lambda weights: replacements(weights, own))

    def _resident_blocks(self, settings: Sequence[Setting], rows: int) -> ResidentBlocks:
        held, source = dict(settings[0].held), self._passes.source
        target = held.pop("target", None)
        targets = np.stack([s.held["target"] for s in settings]) if len(settings) > 1 else None
        sent = {k: tensor_of(v[None], f"held {k!r}", self._device, self._dtype) for k, v in held.items()}

        def ask(points: Mapping[str, Tensor], count: int, weights: Mapping[str, Tensor] | None) -> Any:
            whole = {k: tensor.expand(count, *tensor.shape[1:]) for k, tensor in sent.items()}
            oracle = self if weights is None else self._with(source=source.reweighted(weights))
            batch = oracle._resident_batch(points, whole, count)
            if targets is None:
                by_row = None if target is None else np.broadcast_to(target, (count, *np.shape(target)))
                answers = [oracle._passes.gradients(batch, by_row)]
            else:
                answers = oracle._passes.gradients_of(batch, targets)
            return [(values, dict(zip(points, found.values(), strict=True))) for values, found in answers]

        return ResidentBlocks(settings, self._device, rows, ask)

    def _resident_batch(self, points: Mapping[str, Tensor], held: Mapping[str, Tensor], rows: int) -> Batch:
        """Return points that are on the device already as a batch."""
        alone = next(iter(self._shapes), "")  # what a single array of points is called
        cast = {name or alone: tensor.to(self._dtype or tensor.dtype) for name, tensor in points.items()}
        return Batch(cast, held, "" not in cast, rows)

    @property
    def _target(self) -> Any:  # it lies with the passes, which apply it
        return self._passes.target

    def _aimed(self, target: tuple[int, ...]) -> Self:
        return self._with(target=target)

    def _with(self, **changed: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _passes=replace(self._passes, **changed))
        return other

    def predict(self, points: Points, **held: Array) -> Array:
        """Return the model's outputs (m, *output_shape) for a batch of points; a held ``target`` is ignored.

        Raises
        ------
        ValueError, TypeError
            An input does not fit, or the output is not one tensor of m rows: choose by ``output=``.
        MemoryError
            PyTorch found no memory for the batch.
        """
        held.pop("target", None)
        batch = self._batch(points, held)
        return self._passes.outputs(batch) if batch.rows else self._passes.outputs(batch.zeros())[:0]

    def value(self, points: Points, **held: Array) -> Array:
        """Return the values (m,) of the target on a batch of points, without gradients.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`.
        """
        by_row = held.pop("target", None)
        batch = self._batch(points, held)
        if batch.rows == 0:
            return array_of(next(iter(batch.points.values())).new_zeros(0))
        return self._passes.values(batch, by_row)

    def value_and_gradient(self, points: Points, **held: Array) -> tuple[Array, Any]:
        """Return values (m,) and gradients, in the model's dtype (float32 for bfloat16).

        Parameters
        ----------
        points : array (m, *shape) or mapping of such arrays
            Inputs, or outputs of ``layer``; float64 is cast to what the model takes. Gradients have
            the same form.
        **held : array
            The model's other arguments by name, and ``target``, integers (m,) or (m, n_axes), by row.

        Raises
        ------
        ValueError, TypeError
            An input or the target does not fit; the output is not differentiable or does not depend on
            an input.
        FloatingPointError
            A gradient is NaN or infinite; the message names the row, and the layer where it is known.
        MemoryError
            PyTorch found no memory for the batch.
        """
        by_row = held.pop("target", None)
        batch = self._batch(points, held)
        if batch.rows == 0:
            values, gradients = _nothing(batch)
        else:
            values, gradients = self._passes.gradients(batch, by_row)
        return array_of(values), _arrays(gradients, points)

    def values_and_gradients(self, points: Points, targets: Any, **held: Array) -> tuple[Array, list[Any]]:
        """Return values (K, m) and K gradients for K targets: one forward pass, and K backward passes.

        Parameters
        ----------
        points, **held
            As `value_and_gradient` takes them, without a held ``target``.
        targets : sequence of int, or of tuples of int
            Elements of the output, in the place of the oracle's own.

        Raises
        ------
        ValueError, TypeError, FloatingPointError, MemoryError
            As in `value_and_gradient`; or ``target`` is a function, or held too.
        """
        chosen = read_targets(targets, held)
        batch = self._batch(points, held)
        if batch.rows == 0:
            answers = [_nothing(batch) for _ in chosen]
        else:
            answers = self._passes.gradients_of(batch, chosen)
        return np.stack([array_of(v) for v, _ in answers]), [_arrays(g, points) for _, g in answers]

    def layer_output(self, **inputs: Array) -> Array:
        """Return the output (m, *shape) of ``layer`` for a batch of the model's inputs: points to smooth at.

        Raises
        ------
        ValueError
            The oracle has no layer, or the forward pass does not call it exactly once.
        """
        if self._passes.layer is None:
            raise ValueError("layer_output is for an oracle with layer=")
        held = {k: tensor_of(v, f"input {k!r}", self._device, self._dtype) for k, v in inputs.items()}
        rows = max((len(tensor) for tensor in held.values()), default=0)
        outputs = self._passes.layer_outputs(held, rows)
        if len(outputs) != 1:
            raise ValueError(
                f"layer {self._passes.layer!r} is called {len(outputs)} times in a forward pass, not once"
            )
        return array_of(outputs[0])

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        passes, target = self._passes, self._told_target
        return {
            "oracle": "mollikit_torch.TorchOracle",
            "model": self._name,
            "weights_sha256": passes.source.digest(),
            "output": _name(passes.output) if callable(passes.output) else passes.output,
            "layer": passes.layer,
            "target": list(target) if isinstance(target, tuple) else target,
            "device": str(self._device),
            "dtype": None if self._dtype is None else str(self._dtype),
            "memory_format": str(passes.form),
            "autocast": None if passes.autocast is None else str(passes.autocast),
            "compiled": self._compiled,
            "resident": self._resident,
            "torch": torch.__version__,
        }

    def __repr__(self) -> str:
        at = "" if self._passes.layer is None else f", layer={self._passes.layer!r}"
        return f"TorchOracle({self._name}, target={self._told_target!r}{at}, device={str(self._device)!r})"

    def __getstate__(self) -> dict[str, Any]:
        passes = self._passes
        for what, part in (("model", passes.source), ("target", passes.target), ("output", passes.output)):
            try:
                check_picklable(part)
            except Exception as error:
                raise TypeError(
                    f"the oracle's {what} cannot be sent to another process ({error}): define its classes "
                    "and functions at the top of a module"
                ) from error
        return self.__dict__

    @property
    def _told_target(self) -> Any:
        return _name(self._passes.target) if callable(self._passes.target) else self._passes.target

    def _batch(self, points: Any, held: Mapping[str, Array]) -> Batch:
        if self._passes.layer is not None and isinstance(points, Mapping):
            raise ValueError(f"points at layer {self._passes.layer!r} are one array, and all inputs are held")
        return Batch.read(points, held, self._shapes, self._device, self._dtype)


def _nothing(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Values and gradients of no points."""
    values = next(iter(batch.points.values())).new_zeros(0)
    return values, {name: torch.zeros_like(tensor) for name, tensor in batch.points.items()}


def _arrays(gradients: Mapping[str, Tensor], points: Points) -> Any:
    """Gradients as arrays in the form of the points."""
    arrays = {name: array_of(gradient) for name, gradient in gradients.items()}
    return arrays if isinstance(points, Mapping) else next(iter(arrays.values()))


def _name(function: Any) -> str:
    """What a function is called; an object that is called goes by its class."""
    return getattr(function, "__qualname__", type(function).__name__)
