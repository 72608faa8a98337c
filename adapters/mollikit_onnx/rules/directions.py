from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import TensorProto

from mollikit_onnx.accumulation import back
from mollikit_onnx.graphs.tensor import Dimension, Tensor
from mollikit_onnx.rules import Node, Sent
from mollikit_onnx.rules.gates import Activation, activations
from mollikit_onnx.rules.linear_algebra import long

# Places of the inputs: x, weights, recurrences, biases, lengths, hidden states, cells, peepholes.
X, W, R, B, LENGTHS, HIDDEN, CELLS, PEEPHOLES = range(8)


# The value of a function, and what takes cotangents of it back to its argument.
Applied = tuple[Tensor, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent node: time first, in the order in which it is run.

    Attributes
    ----------
    x, before : Tensor
        Inputs and the hidden states that the steps start from, (time, batch, ...).
    weight, recurrence : Tensor
        Of the gates, one below the other.
    biases : list of Tensor, or None
        Of the inputs and of the hidden states, (gates * hidden,).
    peepholes : list of Tensor, or None
        For the gates i, o and f of an LSTM.
    states : list of Tensor
        That the first step starts from.
    g : Tensor
        Cotangents of the hidden states.
    last : list of Tensor
        Cotangents of the last states.
    alive : list of Tensor
        Empty where all examples are of full length, else (time, batch, 1): 1 for their steps, 0 beyond.
    functions : list of Activation
    clip : float or None
    n_gates : int
    """

    x: Tensor
    before: Tensor
    weight: Tensor
    recurrence: Tensor
    biases: list[Tensor] | None
    peepholes: list[Tensor] | None
    states: list[Tensor]
    g: Tensor
    last: list[Tensor]
    alive: list[Tensor]
    functions: list[Activation]
    clip: float | None
    n_gates: int

    def from_inputs(self) -> Tensor:
        """What the gates take from the inputs, of all steps."""
        return self._weighted(self.x, self.weight, 0)

    def from_hidden(self) -> Tensor:
        """What the gates take from the hidden states, of all steps."""
        return self._weighted(self.before, self.recurrence, 1)

    def _weighted(self, x: Tensor, weight: Tensor, which: int) -> Tensor:
        product = x.op("MatMul", weight.op("Transpose", perm=[1, 0]))
        return product if self.biases is None else product + self.biases[which]

    def split(self, gates: Tensor, axis: int = 2) -> list[Tensor]:
        """Apart by gates along an axis (gates * hidden)."""
        return _parts(gates, self.n_gates, axis)

    def apply(self, which: int, a: Tensor) -> Applied:
        """Value of an activation, and the function that takes its cotangents back to a."""
        before = len(a.graph.nodes)
        limited = a if self.clip is None else a.op("Clip", -self.clip, self.clip)
        y = self.functions[which](limited)
        nodes = a.graph.nodes[before:]
        return y, lambda g: back(a.graph, nodes, [a], [(y, g)])[0]

    def live(self, x: Tensor) -> Tensor:
        """Zero beyond the end of an example."""
        return x * self.alive[0] if self.alive else x

    def kept(self, x: Tensor) -> Tensor:
        """One beyond the end of an example: there the states stay as they are."""
        return x * self.alive[0] + (1 - self.alive[0]) if self.alive else x

    def passed_on(self, earlier: Tensor, later: Tensor, live: Sequence[Tensor]) -> Tensor:
        """Cotangent of a state from that of the next, which it is beyond the end of an example."""
        return earlier + later * (1 - live[0]) if live else earlier

    def collected(self, of_inputs: Tensor, of_hidden: Tensor, first: Tensor) -> Sent:
        """Cotangents of x, the weights, recurrences, biases, lengths and first hidden states."""
        graph = of_inputs.graph
        sums = [gates.op("ReduceSum", [0, 1], keepdims=0) for gates in (of_inputs, of_hidden)]
        return [
            of_inputs.op("MatMul", self.weight),
            long(of_inputs).op("Gemm", long(self.x), transA=1),
            long(of_hidden).op("Gemm", long(self.before), transA=1),
            graph.op("Concat", *sums, axis=0),
            None,
            first,
        ]


@dataclass(frozen=True)
class Directions:
    """The directions of a recurrent node, and how they are joined again."""

    node: Node
    runs: list[Direction]
    turns: list[bool]
    lengths: Tensor | None
    batch_first: bool

    def joined(self, sent: list[Sent]) -> Sent:
        """Cotangents of the node's inputs from those of its directions."""
        total: Tensor | None = None
        for turned, (x, *_) in zip(self.turns, sent, strict=True):
            assert x is not None
            back = _turned(x, self.lengths) if turned else x
            total = back if total is None else total + back
        stacked = [
            self._stacked([part[place] for part in sent if len(part) > place]) for place in range(1, 8)
        ]
        if self.batch_first:
            assert total is not None
            total = total.op("Transpose", perm=[1, 0, 2])
            for place in (HIDDEN, CELLS):
                states = stacked[place - 1]
                stacked[place - 1] = None if states is None else states.op("Transpose", perm=[1, 0, 2])
        return [total, *stacked][: len(self.node.inputs)]

    def _stacked(self, parts: Sent) -> Tensor | None:
        present = [part.op("Unsqueeze", [0]) for part in parts if part is not None]
        return self.node.graph.op("Concat", *present, axis=0) if present else None


def directions(node: Node, cotangents: Sequence[Tensor | None], usual: tuple[str, ...]) -> Directions:
    """Take a recurrent node apart.

    Parameters
    ----------
    node : Node
    cotangents : sequence of Tensor or None
        Of the hidden states, the last hidden states and the last cells.
    usual : tuple of str
        Activations where the node names none.
    """
    batch_first = bool(node.attribute("layout"))
    turns = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    turned = turns[node.attribute("direction")]
    functions = activations(node, usual, len(turned))
    recurrences = node.inputs[R]
    n_gates = len({"RNN": "h", "GRU": "zrh", "LSTM": "iofc"}[node.proto.op_type])

    def major(x: Tensor | None, perm: list[int]) -> Tensor | None:
        return x if x is None or not batch_first else x.op("Transpose", perm=perm)

    x = major(node.inputs[X], [1, 0, 2])
    assert x is not None
    hidden = _hidden_states(node, x, batch_first)
    lengths = node.input(LENGTHS)
    alive = [] if lengths is None else [_alive(x, lengths, recurrences.dtype)]
    of_hidden, *of_last = [*cotangents, None, None, None][:3]
    of_hidden = major(of_hidden, [1, 2, 0, 3])
    lasts = [major(g, [1, 0, 2]) for g in of_last]
    starts = [major(node.input(place), [1, 0, 2]) for place in (HIDDEN, CELLS)]
    bias, peepholes = node.input(B), node.input(PEEPHOLES)
    zero = node.graph.scalar(0.0, x.dtype)
    blank = zero.op("Expand", x.dims(1, 2).op("Concat", recurrences.dims(2, 3), axis=0))
    if x.shape is not None and recurrences.shape is not None:
        blank = blank.shaped((x.shape[1], recurrences.shape[2]))
    runs = []
    for k, turn in enumerate(turned):
        y = _at(hidden, k, axis=1)
        g = zero.op("Expand", y.dims()).shaped(y.shape) if of_hidden is None else _at(of_hidden, k, axis=1)
        in_time = [_turned(s, lengths) if turn else s for s in (x, y, g)]
        states, last = ([blank if s is None else _at(s, k) for s in given] for given in (starts, lasts))
        runs.append(
            Direction(
                x=in_time[0],
                before=delayed(states[0], in_time[1]),
                weight=_at(node.inputs[W], k),
                recurrence=_at(recurrences, k),
                biases=None if bias is None else _parts(_at(bias, k), 2),
                peepholes=None if peepholes is None else _parts(_at(peepholes, k), 3),
                states=states,
                g=in_time[2],
                last=last,
                alive=alive,
                functions=functions[k],
                clip=node.attribute("clip"),
                n_gates=n_gates,
            )
        )
    return Directions(node, runs, turned, lengths, batch_first)


def delayed(start: Tensor, states: Tensor) -> Tensor:
    """States that the steps start from."""
    first = start.op("Unsqueeze", [0])
    return first.op("Concat", states.op("Slice", [0], [-1], [0]), axis=0).shaped(states.shape)


def _at(x: Tensor, k: int, axis: int = 0) -> Tensor:
    return x.op("Gather", x.graph.scalar(k, TensorProto.INT64), axis=axis)


def _parts(x: Tensor, n: int, axis: int = 0) -> list[Tensor]:
    return x.graph.ops(n, "Split", x, axis=axis, num_outputs=n)


def _hidden_states(node: Node, x: Tensor, batch_first: bool) -> Tensor:
    """All hidden states, (time, directions, batch, hidden)."""
    sizes = node.inputs[R].shape
    shape: tuple[Dimension, ...] | None = None
    if x.shape is not None and sizes is not None:
        shape = (x.shape[0], sizes[0], x.shape[1], sizes[2])
        shape = (shape[2], shape[0], shape[1], shape[3]) if batch_first else shape
    y = node.output(0, x.dtype, shape)
    return y.op("Transpose", perm=[1, 2, 0, 3]) if batch_first else y


def _alive(x: Tensor, lengths: Tensor, dtype: int) -> Tensor:
    """1 for the steps of each example and 0 beyond, (time, batch, 1)."""
    steps = x.dims(0, 1).op("Cast", to=TensorProto.INT32).counted()
    return steps.op("Unsqueeze", [1]).op("Less", lengths).op("Cast", to=dtype).op("Unsqueeze", [2])


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each example from its end to its beginning."""
    if lengths is None:
        return x.op("Slice", [-1], [-(2**63)], [0], [-1]).shaped(x.shape)
    return x.op("ReverseSequence", lengths.op("Cast", to=TensorProto.INT64), time_axis=0, batch_axis=1)
