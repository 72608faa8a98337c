from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mollikit.oracles import Array
from mollikit.outputs import Output, chosen
from mollikit_torch.batches import Batch
from mollikit_torch.diagnosis import Trace, refuse_not_finite
from mollikit_torch.layers import recorded, replaced
from mollikit_torch.memory_format import MemoryFormat
from mollikit_torch.replicas import Replicas, Reweighted, Source
from mollikit_torch.selection import row_values, tensor_output
from mollikit_torch.tensors import array_of, computing


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

        def run(form: torch.memory_format) -> tuple[Tensor, dict[str, Tensor]]:
            return self._differentiated(batch, by_row, form)

        values, gradients = self.form.tried(run, batch.points.values())
        refuse_not_finite(gradients, lambda: self._fault(batch, by_row))
        return values, gradients

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
        batch = batch.copied(points, form)
        with self.source.model() as model:
            if self.layer is not None:
                assert isinstance(model, nn.Module)
                with replaced(model, self.layer, *batch.points.values()):
                    outputs = model(**batch.held)
            elif batch.by_name:
                outputs = model(**batch.points, **batch.held)
            else:
                outputs = model(*batch.points.values(), **batch.held)
            yield chosen(outputs, self.output)

    def _differentiated(
        self, batch: Batch, by_row: Any, form: torch.memory_format
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with self._computing(batch.rows, gradients=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in batch.points.items()}
            with self._output_at(leaves, batch, form) as output:
                values = row_values(output, self.target, by_row, batch.rows)
                if not values.requires_grad:
                    raise ValueError(
                        "the output does not depend on the points by differentiable operations: look for "
                        "argmax, rounding, .detach(), .item(), .numpy() or no_grad in the model, or use an "
                        "estimator from values"
                    )
                ones = torch.ones_like(values)
                found: tuple[Tensor | None, ...] = torch.autograd.grad(
                    values, list(leaves.values()), ones, allow_unused=True
                )
        gradients = {}
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is None:
                which = f"input {name!r}" if name else "the points"
                raise ValueError(f"the output does not depend on {which}: hold it, or choose another output")
            gradients[name] = gradient
        return values.detach(), gradients

    def _fault(self, batch: Batch, by_row: Any) -> str:
        """Say where in the model a gradient that is not finite arose; empty where that is not known."""
        if not isinstance(self.source, Replicas | Reweighted):
            return ""
        trace = Trace()
        with self.source.model() as model, trace.watching(model):
            self._differentiated(batch, by_row, self.form.form)
        return str(trace)
