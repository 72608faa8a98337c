from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel

from mollikit_torch.batches import Batch
from mollikit_torch.passes import Passes
from mollikit_torch.selection import tensor_output

aten = torch.ops.aten


class NoMeanGateError(ValueError):
    """A part of a model for which mean gates know no average.

    Attributes
    ----------
    operator : str
        Such as ``"aten.topk.default"``; empty where it is no single one.
    """

    def __init__(self, operator: Any, reason: str) -> None:
        self.operator = str(operator)
        at = f"operator {operator}: " if operator else ""
        super().__init__(f"{at}{reason}; use mollikit.Pathwise, which needs the gradient alone")


def traced(passes: Passes, model: Callable[..., Any], batch: Batch, form: torch.memory_format) -> GraphModule:
    """Return a model's forward pass as a graph of ATen operators that write on nothing.

    It leads from the points and the held arrays of a batch to the chosen output, or to what a target
    function makes of it. Nothing is computed: the tensors are fake.

    Raises
    ------
    NoMeanGateError
        The forward pass asks for the values of a tensor, or draws random numbers.
    """
    names, held, target = list(batch.points), list(batch.held), passes.target

    def forward(*tensors: Tensor) -> Any:
        points = dict(zip(names, tensors, strict=False))
        beside = dict(zip(held, tensors[len(names) :], strict=True))
        output = passes.called(model, points, replace(batch, held=beside), form)
        return target(output) if callable(target) else tensor_output(output, batch.rows)

    # With gradients, since modules take other ways without, which have none.
    tensors = [tensor.detach().requires_grad_() for tensor in batch.points.values()]

    def trace(function: Callable[..., Any], table: dict[Any, Any] | None) -> GraphModule:
        made = make_fx(torch.func.functionalize(function), table, "fake", _allow_non_fake_inputs=True)
        graph: GraphModule = made(*tensors, *batch.held.values())
        return graph

    try:
        with sdpa_kernel(SDPBackend.MATH):
            graph = trace(forward, _decompositions())
            if any(_writes(node) for node in graph.graph.nodes):  # some decompositions do
                graph = trace(graph, None)
    except (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
        operator = getattr(error, "func", "")
        raise NoMeanGateError(operator, "the forward pass depends on what its values are") from error
    except RuntimeError as error:
        if not any(name in str(error) for name in ("autograd.Function", "custom_function_call")):
            raise
        raise NoMeanGateError("", f"the graph shows no autograd.Function ({error})") from error
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NoMeanGateError(node.target, "it draws random numbers")
        if _writes(node):
            raise NoMeanGateError(node.target, "it writes on a tensor of the model")
    return graph


def form_of(graph: GraphModule) -> list[tuple[str, str, list[str]]]:
    """What a graph does, but for the sizes."""
    return [(n.name, str(n.target), [m.name for m in n.all_input_nodes]) for n in graph.graph.nodes]


def is_pointwise(node: Node) -> bool:
    """Whether a node acts on each element by itself."""
    beside = (aten._to_copy.default, aten.clone.default, aten.alias.default)
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) or node.target in beside


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own, but for functions of single elements; and of normalizations."""
    core: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table = {op: f for op, f in core.items() if torch.Tag.pointwise not in op.tags}
    del table[aten._safe_softmax.default]
    table |= get_decompositions([aten.native_layer_norm, aten.native_group_norm])
    table |= {aten.var_mean.correction: _var_mean, aten.var.correction: lambda *a, **k: _var_mean(*a, **k)[0]}
    return table


def _var_mean(
    x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = dim or list(range(x.ndim))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    count = x.numel() / mean.numel() - (1 if correction is None else correction)
    return (centred * centred).sum(axes, keepdim=keepdim) / count, mean if keepdim else x.mean(axes)
