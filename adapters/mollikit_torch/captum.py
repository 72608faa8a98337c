from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from captum import __version__ as captum_version
from captum.attr import Attribution, GradientAttribution, NoiseTunnel
from torch import Tensor, nn

from mollikit.oracles import Array, Points
from mollikit.targeted import Targeted
from mollikit.targets import check_target
from mollikit_torch.batches import Batch
from mollikit_torch.oracle import TorchOracle
from mollikit_torch.replicas import Function, Replicas, Source
from mollikit_torch.tensors import array_of, computing
from mollikit_torch.weights import replacements, shown


class CaptumOracle(Targeted):
    """A Captum attribution method as an oracle, to be smoothed as a gradient is.

    Given to `mollikit.Pathwise` this estimates what Captum's NoiseTunnel averages, E[A(x + s t)], with error
    bars, budgets, views and samplers, in memory that does not grow with the samples; the weights can be
    smoothed too. Methods work on copies of their model, one a thread, so that hooks which they set (DeepLift,
    guided backpropagation) never reach the caller's. A method that draws random numbers (GradientShap, Lime)
    takes them from PyTorch's own generator, so that a seed does not repeat it.

    NoiseTunnel's ``stdevs`` is the width of ``Gaussian(stdevs)``; its ``smoothgrad`` is the estimate,
    ``smoothgrad_sq`` is ``estimate.mean_square``, and ``vargrad`` is ``estimate.variance`` times (n - 1)/n.

    Source: Kokhlikyan et al. 2020, "Captum: a unified and generic model interpretability library for
    PyTorch".

    Parameters
    ----------
    method : captum.attr.Attribution
        One whose attributions have the inputs' shape, such as ``IntegratedGradients(model)``.
    target : int, tuple of int, "top" or None
        As Captum takes it; "top" is the largest output on the clean input, fixed by `anchored`. An array
        ``target`` held with the rows, integers (m,) or (m, n_axes), takes precedence.
    **arguments
        What else ``method.attribute`` takes: ``n_steps=``, ``baselines=`` ...

    Raises
    ------
    TypeError
        The method is none of Captum's, or a target is a function.
    ValueError
        The method is a NoiseTunnel, its model is in train mode, or an argument is the oracle's own.

    Examples
    --------
    >>> import numpy as np, torch, mollikit as mk
    >>> from captum.attr import IntegratedGradients
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()).eval()
    >>> oracle = CaptumOracle(IntegratedGradients(model), target="top", n_steps=16)
    >>> smooth = mk.Pathwise(mk.Gaussian(0.1))
    >>> estimate = smooth.estimate(oracle, np.ones(3, np.float32), budget=mk.Evaluations(64), rng=0)
    >>> estimate.gradient.shape
    (3,)
    """

    def __init__(
        self,
        method: Attribution,
        *,
        target: int | tuple[int, ...] | Literal["top"] | None = None,
        **arguments: Any,
    ) -> None:
        if not isinstance(method, Attribution):
            raise TypeError(f"method is one of captum.attr, and got a {type(method).__name__}")
        if isinstance(method, NoiseTunnel):
            raise ValueError(
                "NoiseTunnel smooths by itself: give the method inside it, NoiseTunnel.attribution_method"
            )
        if callable(target):
            raise TypeError("Captum's targets are indices: let the model return what is to be explained")
        check_target(target)
        own = {"inputs", "target", "additional_forward_args", "return_convergence_delta"} & arguments.keys()
        if own:
            raise ValueError(
                f"{sorted(own)[0]}= is not for the oracle: points, target and held arrays come with each "
                "call, and attributions alone are smoothed"
            )
        self._method, self._target, self._arguments = type(method).__name__, target, arguments
        self._gradients = isinstance(method, GradientAttribution)
        model = method.forward_func
        self._model = TorchOracle(model)
        self._source: Source
        if isinstance(model, nn.Module):
            self._source = Replicas(_WithModel(method), None)
            tensors = [*model.parameters(), *model.buffers()]
        else:
            self._source, tensors = Function(method), []
        self._device = next((t.device for t in tensors), torch.device("cpu"))
        self._dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
        forward = model.forward if isinstance(model, nn.Module) else model
        self._order = tuple(inspect.signature(forward).parameters)

    @property
    def attribution(self) -> str:
        """What is smoothed in the gradient's place."""
        told = ", ".join(f"{name}={_told(value)}" for name, value in self._arguments.items())
        return f"Captum's {self._method}({told})"

    @property
    def weights(self) -> Mapping[str, Array]:
        """The model's parameters of floats by name, read-only; a plain function shows none."""
        return shown(self._own_weights)

    def reweighted(self, weights: Mapping[str, Array]) -> CaptumOracle:
        """Return this oracle with other tensors in the place of some weights; the model is not touched.

        Raises
        ------
        ValueError
            There is no such weight, or a shape is not its own.
        """
        tensors = replacements(weights, self._own_weights)
        reweighted = copy.copy(self)
        reweighted._source = self._source.reweighted({f"{_MODEL}.{k}": t for k, t in tensors.items()})
        return reweighted

    def predict(self, points: Points, **held: Array) -> Array:
        """Return the outputs (m, *output_shape) of the model behind the method."""
        return self._model.predict(points, **held)

    def value_and_gradient(self, points: Points, **held: Array) -> tuple[None, Any]:
        """Return None for the values, and attributions in the form of the points.

        Parameters
        ----------
        points : array (m, *shape) or mapping of such arrays
            Inputs; of several, in the order in which the model takes them.
        **held : array
            The model's other arguments by name, and ``target`` by row.

        Raises
        ------
        ValueError, TypeError
            An input or the target does not fit, or an attribution has another shape than its input.
        MemoryError
            PyTorch found no memory for the batch.
        """
        by_row = held.pop("target", None)
        batch = Batch.read(points, held, {}, self._device, self._dtype)
        leaves = {name: t.detach().clone() for name, t in batch.points.items()}
        if batch.rows == 0:
            found: Sequence[Tensor] = list(leaves.values())
        else:
            found = self._attributed(leaves, batch, self._targets(by_row, batch.rows))
        arrays = {}
        for (name, leaf), attribution in zip(leaves.items(), found, strict=True):
            if attribution.shape != leaf.shape:
                raise ValueError(
                    f"{self._method} attributes with the shape {tuple(attribution.shape)} to an input of "
                    f"{tuple(leaf.shape)}: only attributions to the inputs themselves are smoothed"
                )
            arrays[name] = array_of(attribution)
        return None, arrays if isinstance(points, Mapping) else next(iter(arrays.values()))

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        return {
            "oracle": "mollikit_torch.CaptumOracle",
            "method": self._method,
            "arguments": {name: _told(value) for name, value in self._arguments.items()},
            "model": self._model.describe()["model"],
            "weights_sha256": self._source.digest(),
            "target": list(self._target) if isinstance(self._target, tuple) else self._target,
            "device": str(self._device),
            "captum": captum_version,
            "torch": torch.__version__,
        }

    def __repr__(self) -> str:
        return f"CaptumOracle({self.attribution.removeprefix(_PREFIX)}, target={self._target!r})"

    @property
    def _own_weights(self) -> dict[str, Tensor]:
        return {name.removeprefix(f"{_MODEL}."): tensor for name, tensor in self._source.weights.items()}

    def _attributed(self, leaves: Mapping[str, Tensor], batch: Batch, target: Any) -> Sequence[Tensor]:
        inputs, others = self._ordered(leaves, batch.held)
        names = list(leaves)
        with (
            computing(self._device, rows=batch.rows, gradients=self._gradients, autocast=None),
            self._source.model() as found,
        ):
            method = found.method if isinstance(found, _WithModel) else found
            assert isinstance(method, Attribution)
            if self._gradients:
                for tensor in leaves.values():
                    tensor.requires_grad_()
            arguments = dict(self._arguments)
            if others:
                arguments["additional_forward_args"] = others
            answer = method.attribute(inputs if len(inputs) > 1 else inputs[0], target=target, **arguments)
        parts = dict(zip(self._names(names), answer if isinstance(answer, tuple) else (answer,), strict=True))
        return [parts[name] for name in names]

    def _names(self, names: list[str]) -> list[str]:
        """Names of the points in the order in which the model takes them."""
        return names if names == [""] else sorted(names, key=self._place)

    def _ordered(
        self, leaves: Mapping[str, Tensor], held: Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs, and the other arguments behind them, by place: Captum passes no keywords.

        Raises
        ------
        ValueError
            A held argument stands before an input, or one between them is missing.
        """
        names = self._names(list(leaves))
        others = sorted(held, key=self._place)
        places = [0] if names == [""] else [self._place(name) for name in names]
        places += [self._place(name) for name in others]
        if places != list(range(len(places))):
            raise ValueError(
                f"Captum passes arguments by place, inputs first: the model takes {list(self._order)}, and "
                f"points are {names if names != [''] else 'its first'}, held {others}"
            )
        return tuple(leaves[name] for name in names), tuple(held[name] for name in others)

    def _place(self, name: str) -> int:
        if name not in self._order:
            raise ValueError(f"the model takes no argument {name!r}; it takes {list(self._order)}")
        return self._order.index(name)

    def _targets(self, by_row: Any, rows: int) -> Any:
        if by_row is None:
            if self._target == "top":
                raise ValueError(
                    "target='top' is resolved on the clean input: call oracle.anchored(inputs) and use what "
                    "it returns, or hold a target for each row"
                )
            return self._target
        targets = np.asarray(by_row)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"held 'target' takes integers and got an array of {targets.dtype}")
        if targets.ndim not in (1, 2) or len(targets) != rows:
            raise ValueError(
                f"held 'target' takes the shape ({rows},) or ({rows}, n_axes), not {targets.shape}"
            )
        if targets.ndim == 2:
            return [tuple(map(int, row)) for row in targets]
        return torch.tensor(targets.astype(np.int64), device=self._device)


_MODEL, _PREFIX = "model", "Captum's "


class _WithModel(nn.Module):
    """A method beside its model, so that a copy of the one refers to the copy of the other."""

    def __init__(self, method: Attribution) -> None:
        super().__init__()
        self.model, self.method = method.forward_func, method


def _told(value: Any) -> Any:
    """An argument as a reader can take it: a tensor by its shape and extremes."""
    if isinstance(value, Tensor):
        return f"<tensor {tuple(value.shape)} of {value.min().item():.6g} to {value.max().item():.6g}>"
    return value if isinstance(value, bool | int | float | str | None) else repr(value)
