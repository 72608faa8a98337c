from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg

from mollikit.surrogates.forward_moments import ForwardMoments, Spread
from mollikit_torch.mean_gates.plan import Chain, Plan
from mollikit_torch.mean_gates.tracing import NoMeanGateError

# Gauss-Hermite nodes: with 16 the slope of a kink is off by 0.01 at worst, with 8 by twice that.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)


class Watching(Interpreter):
    """A forward pass of a batch, of which what the plan asks for is averaged over the rows.

    Attributes
    ----------
    axes : dict of int
        Where the rows lie in what is averaged; given, or found from the sizes, which a batch of two cannot.
    """

    def __init__(
        self, graph: GraphModule, plan: Plan, rows: int, axes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(graph)
        self._plan, self._rows = plan, rows
        self.axes: dict[str, int] = {**(axes or {})}
        self._last = {chain.source.name: leaf for leaf, chain in plan.chains.items()}
        self._centred: dict[str, tuple[Tensor, Tensor]] = {}
        self._means: dict[str, Tensor] = {}
        self._spreads: dict[str, Spread] = {}

    def moments(self, *inputs: Tensor) -> ForwardMoments:
        """Averages over the rows of a batch."""
        self.run(*inputs)
        return ForwardMoments(self._rows, self._means, self._spreads)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name in self._last:
            source = self._by_row(n.name, result)
            mean = _summed(source) / self._rows
            self._centred[n.name] = mean, source - mean
        if n.name in self._plan.chains:
            source_name = self._plan.chains[n.name].source.name
            mean, centred = self._centred[source_name]
            if self._last[source_name] == n.name:
                del self._centred[source_name]
            leaf = self._by_row(source_name, result)
            mean_leaf = _summed(leaf) / self._rows
            # Without its mean the leaf's products lose fewer digits where the noise is small.
            products = _summed(centred, leaf - mean_leaf)
            parts = mean, _summed(centred, centred), mean_leaf, products
            self._spreads[n.name] = Spread(*(part.double() for part in parts))
        elif n.name in self._plan.stand_ins:
            args, _ = self.fetch_args_kwargs_from_env(n)
            for k, tensor in enumerate(self._plan.stand_ins[n.name].seen(args, result)):
                name = f"{n.name}/{k}"
                self._means[name] = _summed(self._by_row(name, tensor)).double() / self._rows
        return result

    def _by_row(self, name: str, tensor: Any) -> Tensor:
        """The rows (rows, *shape of one), wherever the batch lies and whatever is merged with it."""
        tensor = tensor.float() if tensor.dtype.itemsize < 4 else tensor
        if name not in self.axes:
            two = self._plan.shapes[name]
            axes = [k for k, size in enumerate(tensor.shape) if size != two[k]]
            if len(axes) != 1 or 2 * tensor.shape[axes[0]] != self._rows * two[axes[0]]:
                shapes = f"{tuple(two)} for 2 rows and {tuple(tensor.shape)} for {self._rows}"
                raise NoMeanGateError(
                    "", f"{name!r} has no rows of its own for each point: its shape is {shapes}"
                )
            self.axes[name] = axes[0]
        axis = self.axes[name]
        rows: Tensor = tensor.unflatten(axis, (self._rows, -1)).movedim(axis, 0)
        return rows


class Linear(Interpreter):
    """The linear model of two equal rows; the values in it mean nothing, their derivatives do."""

    def __init__(self, graph: GraphModule, plan: Plan, moments: ForwardMoments, prior: float) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._plan, self._moments, self._prior = plan, moments, prior

    def run_node(self, n: Node) -> Any:
        if n.name in self._plan.skipped:
            return None
        if n.name in self._plan.chains:
            chain = self._plan.chains[n.name]
            source: Tensor = self.env[chain.source]
            with torch.no_grad():
                gain = self._gain(n.name, chain, source)
            return source * gain
        if n.name in self._plan.stand_ins:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            dtype = next(a.dtype for a in args if isinstance(a, Tensor) and a.is_floating_point())
            means, shapes = self._moments.means, self._plan.shapes
            names = [name for name in means if name.rpartition("/")[0] == n.name]
            both = [_of_both(means[name], shapes[name]).to(dtype) for name in names]
            operator: Any = n.target
            return self._plan.stand_ins[n.name].linear(partial(operator, **kwargs), args, both)
        result = super().run_node(n)
        return result.detach() if n.op == "get_attr" else result

    def _gain(self, leaf: str, chain: Chain, source: Tensor) -> Tensor:
        """The slope by which the leaf of a chain follows its source, as `mollikit_onnx.MeanGates` does."""
        seen = self._moments.spreads[leaf]
        # A source that does not vary has the slope of the leaf across a step just above rounding.
        variance = seen.variance(self._moments.n) + (1 + seen.mean**2) * 1e-8
        mean, squares, products, variance = (
            _of_both(part.expand(seen.mean.shape), source.shape) if chain.reads_others else part
            for part in (seen.mean, seen.squares, seen.products, variance)
        )
        if not chain.everywhere:
            gain = products / (squares + variance * 1e-6)
        else:
            slope = self._gaussian_slope(chain, mean.to(source.dtype), variance.sqrt().to(source.dtype))
            drawn = variance * self._prior
            gain = (products + slope * drawn) / (squares + drawn)
        return _of_both(gain.to(source.dtype), source.shape)

    def _gaussian_slope(self, chain: Chain, mean: Tensor, deviation: Tensor) -> Tensor:
        """E[dy/ds] for s ~ N(mean, deviation^2), by Stein: E[y(mean + deviation z) z] / deviation."""
        z = torch.tensor(_NODES).to(mean).reshape(-1, *(1 for _ in mean.shape))
        values: dict[Node, Any] = {chain.source: mean + deviation * z}
        for n in chain.nodes:
            kwargs = {name: value for name, value in n.kwargs.items() if name != "memory_format"}
            args, kwargs = map_arg((n.args, kwargs), lambda m: values[m] if m in values else self.env[m])
            operator: Any = n.target
            values[n] = operator(*args, **kwargs)
        weights = (_NODES * _WEIGHTS / _WEIGHTS.sum()).tolist()
        return _summed(values[chain.nodes[-1]], weights) / deviation


def _summed(rows: Tensor, weights: Iterable[Any] | None = None) -> Tensor:
    """The sum of rows, each times a weight or a tensor: on the CPU far faster than over the first axis."""
    if weights is None:
        return reduce(Tensor.add_, rows[1:], rows[0].clone())
    total = torch.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        total.addcmul_(row, weight) if isinstance(weight, Tensor) else total.add_(row, alpha=weight)
    return total


def _of_both(average: Tensor, shape: Sequence[int]) -> Tensor:
    """The same for each of two rows, wherever they lie."""
    axes = [k for k, size in enumerate(average.shape) if size != shape[k]]
    return torch.cat([average, average], axes[0]) if axes else average
