from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter

from mollikit.oracles import Array, GradientOracle, Points
from mollikit.surrogates.forward_moments import ForwardMoments
from mollikit.surrogates.mean_gates import MeanGatesOf
from mollikit_torch.batches import Batch
from mollikit_torch.mean_gates.interpreters import Linear, Watching
from mollikit_torch.mean_gates.plan import Examined, Plan
from mollikit_torch.mean_gates.tracing import NoMeanGateError, form_of, traced
from mollikit_torch.oracle import TorchOracle
from mollikit_torch.selection import row_values
from mollikit_torch.tensors import array_of, computing


@dataclass(frozen=True)
class MeanGates(MeanGatesOf):
    """One backward pass through a model made linear by averages over noisy forward passes. Biased.

    What `mollikit_onnx.MeanGates` does, for PyTorch: see there for the method and its sources. The forward
    pass is traced to a graph of ATen operators, once for each size of batch and not for a plain function,
    which is traced at each map. Whether an operator is linear is told by autograd, which then keeps nothing
    that varies; what is not linear and has no average is refused by name, as is a forward pass that depends
    on its values or draws random numbers, or an ``autograd.Function``. The graph's gradient is checked
    against the oracle's own, which finds what the graph does not show, such as ``detach``.

    Parameters
    ----------
    inputs : Law or mapping of Law by input name
        With which density each input is smoothed. It has a variance, and no importance weights.
    forwards : int
        Forward passes, rounded down to whole groups of the sampler; each counts a third of a gradient.
    sampler : Sampler
        How their points are drawn; pairs of opposite points by default, which need fewer by half.
    prior : float
        Passes for which the slope of a normal law counts.

    Raises
    ------
    ValueError
        If there are fewer than 4 passes, or the prior is not positive.

    Examples
    --------
    >>> import numpy as np, torch, mollikit as mk
    >>> from mollikit_torch import MeanGates, TorchOracle
    >>> gates = MeanGates(mk.Gaussian(0.5), forwards=64)
    >>> x = np.array([0.0, 2.0, -2.0], np.float32)
    >>> gates.surrogate(TorchOracle(torch.nn.ReLU(), target=0), x, rng=0).gradient.round(2)
    array([0.5, 0. , 0. ])
    """

    def _check(self, oracle: GradientOracle) -> None:
        if not isinstance(oracle, TorchOracle) or oracle._compiled:
            raise TypeError(
                "MeanGates works inside of a PyTorch model: give a TorchOracle without compile=, not "
                f"{type(oracle).__name__}"
            )

    def _at_input(self, oracle: TorchOracle, points: Points, held: Mapping[str, Array]) -> _AtInput:
        beside = dict(held)
        target = beside.pop("target", None)
        return _AtInput(
            oracle, oracle._batch(points, beside), target, self.prior, isinstance(points, Mapping)
        )


@dataclass(eq=False)
class _Graphs:
    """The graphs of a model, by the rows of a batch, and the targets for which their gradient was checked."""

    by_rows: dict[int, GraphModule] = field(default_factory=dict)
    checked: list[Any] = field(default_factory=list)
    plan: Plan | None = None


# Of modules alone, each the replica of a thread: what a function closes over may change.
_KNOWN: WeakKeyDictionary[nn.Module, list[tuple[Any, _Graphs]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


class _AtInput:
    """A model at one input, as a batch of two equal rows: one has other strides, and so another graph."""

    rows = 8

    def __init__(self, oracle: TorchOracle, clean: Batch, target: Any, prior: float, by_name: bool) -> None:
        self._oracle, self._passes, self._prior, self._by_name = oracle, oracle._passes, prior, by_name
        self._clean = replace(
            clean,
            points={name: torch.cat([t, t]) for name, t in clean.points.items()},
            held={name: torch.cat([t, t]) for name, t in clean.held.items()},
            rows=2,
        )
        self._by_row = None if target is None else np.concatenate([target, target])
        self._own: list[tuple[Any, _Graphs]] = []
        # The oracle's own pass refuses what does not fit, and settles the memory format.
        _, expected = self._passes.gradients(self._clean, self._by_row)
        aim = (self._passes.target, None if target is None else target.tolist())
        with self._graphs(self._clean) as graphs:
            assert graphs.plan is not None
            self._plan = graphs.plan
            self.made_linear = self._plan.made_linear
            if aim not in graphs.checked:
                for name, found in self._gradients(Interpreter(graphs.by_rows[2])).items():
                    off = (found - expected[name][0]).norm()
                    if not off <= 0.01 * expected[name][0].norm():
                        raise NoMeanGateError(
                            "",
                            "the gradient is not that of the operators of the forward pass: look for detach "
                            "or no_grad in the model, or for rows of a batch that influence each other",
                        )
                graphs.checked.append(aim)

    def moments(self, points: Points, held: Mapping[str, Array]) -> ForwardMoments:
        beside = {name: value for name, value in held.items() if name != "target"}
        batch = self._oracle._batch(points, beside)
        with self._graphs(batch) as graphs, torch.no_grad():
            graph = graphs.by_rows[batch.rows]
            return Watching(graph, self._plan, batch.rows).moments(*_tensors(batch))

    def gradient(self, moments: ForwardMoments) -> Any:
        with self._graphs(self._clean) as graphs:
            found = self._gradients(Linear(graphs.by_rows[2], self._plan, moments, self._prior))
        arrays = {name: array_of(gradient[None]) for name, gradient in found.items()}
        return arrays if self._by_name else next(iter(arrays.values()))

    def _gradients(self, interpreter: Interpreter) -> dict[str, Tensor]:
        """Gradients of the first row through an interpreter of the graph."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in self._clean.points.items()}
        output = interpreter.run(*leaves.values(), *self._clean.held.values())
        target = None if callable(self._passes.target) else self._passes.target
        first = row_values(output, target, self._by_row, 2)[0]
        found = torch.autograd.grad(first, list(leaves.values()), allow_unused=True)
        rows = zip(leaves.items(), found, strict=True)
        return {name: torch.zeros_like(leaf[0]) if g is None else g[0] for (name, leaf), g in rows}

    @contextmanager
    def _graphs(self, batch: Batch) -> Iterator[_Graphs]:
        """Give the graphs of this thread's model, that for such a batch among them."""
        passes, form = self._passes, self._passes.form.form
        key = [(name, t.shape[1:], t.dtype) for name, t in (*batch.points.items(), *batch.held.items())]
        target = passes.target if callable(passes.target) else None
        asked = (key, passes.output, passes.layer, form, passes.autocast, target)
        with passes.source.model() as model:
            with _LOCK:
                known = _KNOWN.setdefault(model, []) if isinstance(model, nn.Module) else self._own
                graphs = next((found for kept, found in known if kept == asked), None)
                if graphs is None:
                    graphs = _Graphs()
                    known.append((asked, graphs))
                if batch.rows not in graphs.by_rows:
                    with computing(passes.device, rows=batch.rows, gradients=True, autocast=passes.autocast):
                        graph = traced(passes, model, batch, form)
                    with computing(passes.device, rows=batch.rows, gradients=True, autocast=None):
                        self._learn(graphs, graph, batch.rows)
            with computing(passes.device, rows=batch.rows, gradients=True, autocast=None):
                yield graphs

    def _learn(self, graphs: _Graphs, graph: GraphModule, rows: int) -> None:
        """Plan, or see that another batch does the same: rows are told apart by sizes alone."""
        clean = _tensors(self._clean)
        if graphs.plan is None:
            examined = Examined(graph)
            examined.run(*(t.detach().requires_grad_(t.is_floating_point()) for t in clean))
            graphs.plan = examined.plan()
        elif form_of(graph) != form_of(graphs.by_rows[2]):
            raise NoMeanGateError("", f"{rows} rows go another way through the model than two")
        else:
            with torch.no_grad():
                many = Watching(graph, graphs.plan, rows)
                found = many.moments(*(t[:1].expand(rows, *t.shape[1:]) for t in clean))
                two = Watching(graphs.by_rows[2], graphs.plan, 2, many.axes).moments(*clean)
            pairs = [(name, mean, found.means[name]) for name, mean in two.means.items()]
            pairs += [(name, spread.leaf, found.spreads[name].leaf) for name, spread in two.spreads.items()]
            for name, of_two, of_many in pairs:
                if (of_many - of_two).norm() > 0.01 * of_two.norm():
                    raise NoMeanGateError("", f"the rows of a batch are mixed, or out of order, in {name!r}")
        graphs.by_rows[rows] = graph


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (*batch.points.values(), *batch.held.values())
