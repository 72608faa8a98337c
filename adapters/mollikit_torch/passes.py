from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mollikit.oracles import Array
from mollikit.outputs import Output, chosen
from mollikit.targets import index
from mollikit_torch.batches import Batch
from mollikit_torch.diagnosis import Trace, refuse_not_finite
from mollikit_torch.layers import recorded, replaced
from mollikit_torch.memory_format import MemoryFormat
from mollikit_torch.replicas import Replicas, Reweighted, Source
from mollikit_torch.selection import row_values, tensor_output
from mollikit_torch.tensors import array_of, computing

# A fixed target, and what is held with the rows in its place.
Explained = tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Passes:
    """Forward and backward passes of a model on a device, in settings of their own whatever the caller's are.

    Attributes
    ----------
    source : Source
        Where the model, and its weights, come from.
    target, output, layer
        As `TorchOracle` takes them.
    device, form, autocast
        Where and how it runs.
    """

    source: Source
    target: Any
    output: Output
    layer: str | None
    device: torch.device
    form: MemoryFormat
    autocast: torch.dtype | None

    def outputs(self, batch: Batch) -> Array:
        """Outputs (m, *output_shape) of a batch."""

        def run(form: torch.memory_format) -> Array:
            with self._computing(batch.rows), self._output_at(batch.points, batch, form) as output:
                return array_of(tensor_output(output, batch.rows))

        return self.form.tried(run, batch.points.values())

    def values(self, batch: Batch, by_row: Any) -> Array:
        """Values (m,) of the target, or of those held with the rows."""

        def run(form: torch.memory_format) -> Array:
            with self._computing(batch.rows), self._output_at(batch.points, batch, form) as output:
                return array_of(row_values(output, self.target, by_row, batch.rows))

        return self.form.tried(run, batch.points.values())

    def gradients(self, batch: Batch, by_row: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Values (m,) and gradients by input name, on the device; they are finite."""
        (answer,) = self._finite(batch, [(self.target, by_row)])
        return answer

    def gradients_of(self, batch: Batch, targets: Array) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """`gradients` of each of several targets: one forward pass, and a backward pass for each."""
        if callable(self.target):
            raise ValueError("target is a function, so other targets have no meaning: drop it")
        return self._finite(batch, [(index(target), None) for target in targets])

    def _finite(self, batch: Batch, explained: Sequence[Explained]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        if batch.rows == 1 and self._normalizes_batches():
            # Of one row PyTorch 2.13.0 gives wrong gradients of BatchNorm2d, without a word, where the
            # cotangent lies in memory with its channels last and the batch next to them, as behind an einsum.
            twice = [
                (target, None if held is None else np.repeat(held, 2, axis=0)) for target, held in explained
            ]
            with self._computing(2):
                doubled = batch.doubled()
            answers = self._finite(doubled, twice)
            return [
                (values[:1], {name: g[:1] for name, g in gradients.items()}) for values, gradients in answers
            ]

        def run(form: torch.memory_format) -> list[tuple[Tensor, dict[str, Tensor]]]:
            return self._differentiated(batch, explained, form)

        answers = self.form.tried(run, batch.points.values())
        for one, (_, gradients) in zip(explained, answers, strict=True):
            refuse_not_finite(gradients, partial(self._fault, batch, one))
        return answers

    def _normalizes_batches(self) -> bool:
        with self.source.model() as model:
            modules = model.modules() if isinstance(model, nn.Module) else ()
            return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)

    def layer_outputs(self, held: Mapping[str, Tensor], rows: int) -> list[Tensor]:
        """What the layer gives at each of its calls in a forward pass."""
        assert self.layer is not None
        with self._computing(rows), self.source.model() as model:
            assert isinstance(model, nn.Module)
            with recorded(model, self.layer) as outputs:
                model(**held)
        return outputs

    @contextmanager
    def _computing(self, rows: int, gradients: bool = False) -> Iterator[None]:
        with computing(self.device, rows=rows, gradients=gradients, autocast=self.autocast):
            yield

    @contextmanager
    def _output_at(
        self, points: Mapping[str, Tensor], batch: Batch, form: torch.memory_format
    ) -> Iterator[Any]:
        """Give the chosen output at these points; a backward pass needs the weights and belongs inside."""
        with self.source.model() as model:
            yield self.called(model, points, batch, form)

    def called(
        self, model: Callable[..., Any], points: Mapping[str, Tensor], batch: Batch, form: torch.memory_format
    ) -> Any:
        """Return the chosen output of a model, which belongs to this thread, at these points."""
        batch = batch.copied(points, form)
        if self.layer is not None:
            assert isinstance(model, nn.Module)
            with replaced(model, self.layer, *batch.points.values()):
                outputs = model(**batch.held)
        elif batch.by_name:
            outputs = model(**batch.points, **batch.held)
        else:
            outputs = model(*batch.points.values(), **batch.held)
        return chosen(outputs, self.output)

    def _differentiated(
        self, batch: Batch, explained: Sequence[Explained], form: torch.memory_format
    ) -> list[tuple[Tensor, dict[str, Tensor]]]:
        with self._computing(batch.rows, gradients=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in batch.points.items()}
            with self._output_at(leaves, batch, form) as output:
                values = [row_values(output, target, by_row, batch.rows) for target, by_row in explained]
                found = _pulled_back(values, list(leaves.values()))
        for name, gradient in zip(leaves, found[0], strict=True):
            if gradient is None:
                which = f"input {name!r}" if name else "the points"
                raise ValueError(f"the output does not depend on {which}: hold it, or choose another output")
        return [(v.detach(), dict(zip(leaves, g, strict=True))) for v, g in zip(values, found, strict=True)]

    def _fault(self, batch: Batch, explained: Explained) -> str:
        """Say where in the model a gradient that is not finite arose; empty where that is not known."""
        if not isinstance(self.source, Replicas | Reweighted):
            return ""
        trace = Trace()
        with self.source.model() as model, trace.watching(model):
            self._differentiated(batch, [explained], self.form.form)
        return str(trace)


def _pulled_back(values: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """Gradients of each of several values (m,) of one forward pass; None for what none depends on."""
    if not all(each.requires_grad for each in values):
        raise ValueError(
            "the output does not depend on the points by differentiable operations: look for argmax, "
            "rounding, .detach(), .item(), .numpy() or no_grad in the model, or use an estimator from values"
        )
    found = []
    for number, each in enumerate(values, 1):
        ones, further = torch.ones_like(each), number < len(values)
        found.append(torch.autograd.grad(each, leaves, ones, retain_graph=further, allow_unused=True))
    return found
