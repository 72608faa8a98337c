"""Backpropagation through time.

The hidden states are outputs of the forward node, so what each step computed from them is computed again
for all steps at once. Only the adjoint itself, and the cells of an LSTM, are recurrences: a Scan each.
"""

from __future__ import annotations

from collections.abc import Sequence

from mollikit_onnx.graphs.recurrence import scan
from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.directions import Applied, Direction, delayed, directions
from mollikit_onnx.rules.linear_algebra import long

_States = tuple[Sequence[Tensor], Sequence[Tensor]]


@rule("RNN", since=7)
def rnn(node: Node, *cotangents: Tensor | None) -> Sent:
    """H_t = f(W x_t + R h_{t-1} + b)."""
    found = directions(node, cotangents, ("Tanh",))
    return found.joined([_rnn(run) for run in found.runs])


def _rnn(run: Direction) -> Sent:
    gates = run.from_inputs() + run.from_hidden()
    slope = run.apply(0, gates)[1](gates.graph.scalar(1.0, gates.dtype).expanded_like(gates))

    def step(states: list[Tensor], slices: list[Tensor]) -> _States:
        (after,), (g, slope, *live) = states, slices
        gate = (after + g) * slope
        return [run.passed_on(gate.op("MatMul", run.recurrence), after, live)], [gate]

    (first,), (gates,) = scan([run.last[0]], [run.g, run.live(slope), *run.alive], step, backwards=True)
    return run.collected(gates, gates, first)


@rule("LSTM", since=7)
def lstm(node: Node, *cotangents: Tensor | None) -> Sent:
    """Cells c_t = f c_{t-1} + i j and hidden states h_t = o h(c_t), with gates i, o, f and j."""
    found = directions(node, cotangents, ("Sigmoid", "Tanh", "Tanh"))
    if node.attribute("clip") is not None:
        node.refuse("onnxruntime clips other numbers than the standard says; export it without clip")
    coupled = bool(node.attribute("input_forget"))
    return found.joined([_lstm(run, coupled) for run in found.runs])


def _lstm(run: Direction, coupled: bool) -> Sent:
    """The adjoint of h_t and c_t, backwards in time.

    With d = dh_t + g_t:  do = d h(c_t) o',  dc = dc_t + d o h'(c_t) + P_o do,  di = dc j i',
    df = dc c_{t-1} f' (where i and f are coupled, f = 1 - i: di = dc (j - c_{t-1}) i'),  dj = dc i j',
    dc_{t-1} = dc f + P_i di + P_f df,  dh_{t-1} = R' (di, do, df, dj).
    """
    parts = run.split(run.from_inputs() + run.from_hidden())
    of_i, of_o, of_f, of_j = parts
    peep = run.peepholes

    def gates(before: Tensor, of_i: Tensor, of_f: Tensor) -> list[Applied]:
        i, di = run.apply(0, of_i + before * peep[0] if peep else of_i)
        if coupled:
            return [(i, di), (1 - i, lambda g: 0 * g)]
        return [(i, di), run.apply(0, of_f + before * peep[2] if peep else of_f)]

    j, dj = run.apply(1, of_j)

    def cell(states: list[Tensor], slices: list[Tensor]) -> _States:
        before, (of_i, of_f, j) = states[0], slices
        (i, _), (f, _) = gates(before, of_i, of_f)
        after = f * before + i * j
        return [after], [after]

    def plain_cell(states: list[Tensor], slices: list[Tensor]) -> _States:
        after = slices[0] * states[0] + slices[1]
        return [after], [after]

    start = run.states[1]
    if peep:
        _, (cells,) = scan([start], [of_i, of_f, j], cell)
    else:
        # Without peepholes the gates are known beforehand.
        (i, _), (f, _) = gates(start, of_i, of_f)
        _, (cells,) = scan([start], [f, i * j], plain_cell)
    before = delayed(start, cells)
    (i, di), (f, df) = gates(before, of_i, of_f)
    o, do = run.apply(0, of_o + cells * peep[1] if peep else of_o)
    h, dh = run.apply(2, cells)
    slopes = [di(j - before if coupled else j), do(h), df(before), dj(i), dh(o)]

    def step(states: list[Tensor], slices: list[Tensor]) -> _States:
        (hidden, cell), (g, at_i, at_o, at_f, at_j, at_c, f, *live) = states, slices
        d = hidden + g
        out = d * at_o
        c = cell + d * at_c
        if peep:
            c = c + out * peep[1]
        into, forget = c * at_i, c * at_f
        gate = into.op("Concat", out, forget, c * at_j, axis=-1)
        earlier = c * f
        if peep:
            earlier = earlier + into * peep[0] + forget * peep[2]
        return [run.passed_on(gate.op("MatMul", run.recurrence), hidden, live), earlier], [gate]

    sequences = [run.g, *(run.live(slope) for slope in slopes), run.kept(f), *run.alive]
    (first, cell_first), (along,) = scan(run.last[:2], sequences, step, backwards=True)
    sent = run.collected(along, along, first)
    parts = run.split(along)
    seen = [parts[0] * before, parts[1] * cells, parts[2] * before]
    sums = [s.op("ReduceSum", [0, 1], keepdims=0) for s in seen]
    return [*sent, cell_first, sums[0].op("Concat", *sums[1:], axis=0)]


@rule("GRU", since=7)
def gru(node: Node, *cotangents: Tensor | None) -> Sent:
    """H_t = (1 - z) n + z h_{t-1}, with gates z and r, and n from r h_{t-1} or r (R h_{t-1} + b)."""
    found = directions(node, cotangents, ("Sigmoid", "Tanh"))
    last = bool(node.attribute("linear_before_reset"))
    return found.joined([_gru(run, last) for run in found.runs])


def _gru(run: Direction, linear_first: bool) -> Sent:
    """The adjoint of h_t, backwards in time.

    With d = dh_t + g_t:  dz = d (h_{t-1} - n) z',  dn = d (1 - z) n',  and e = dn q, where the hidden part of
    n is r q with q = R_n h_{t-1} + b:  dr = e r',  dh_{t-1} = d z + R' (dz, dr, r dn).
    Where it is R_n (r h_{t-1}) + b instead, with u = R_n' dn:  dr = u h_{t-1} r',  and
    dh_{t-1} = d z + r u + (R_z, R_r)' (dz, dr).
    """
    graph = run.x.graph
    of_inputs, of_hidden = run.split(run.from_inputs()), run.split(run.from_hidden())
    z, dz = run.apply(0, of_inputs[0] + of_hidden[0])
    r, dr = run.apply(0, of_inputs[1] + of_hidden[1])
    *of_z_and_r, new = run.split(run.recurrence, axis=0)
    if linear_first:
        n, dn = run.apply(1, of_inputs[2] + r * of_hidden[2])
    else:
        reset = run.before * r
        hidden = reset.op("MatMul", new.op("Transpose", perm=[1, 0]))
        if run.biases is not None:
            hidden = hidden + run.split(run.biases[1], axis=0)[2]
        n, dn = run.apply(1, of_inputs[2] + hidden)
    slopes = [dz(run.before - n), dr(of_hidden[2] if linear_first else run.before), dn(1 - z)]
    both = run.recurrence if linear_first else graph.op("Concat", *of_z_and_r, axis=0)

    def step(states: list[Tensor], slices: list[Tensor]) -> _States:
        g, at_z, at_r, at_n, z, r = slices
        d = states[0] + g
        update, candidate = d * at_z, d * at_n
        back = candidate if linear_first else candidate.op("MatMul", new)
        gates = update.op("Concat", back * at_r, axis=-1)
        through = back * r
        seen = gates.op("Concat", through, axis=-1) if linear_first else gates
        earlier = d * z + seen.op("MatMul", both)
        return [earlier if linear_first else earlier + through], [gates.op("Concat", candidate, axis=-1)]

    sequences = [run.live(run.g), *(run.live(slope) for slope in slopes), run.kept(z), r]
    (first,), (along,) = scan([run.last[0]], sequences, step, backwards=True)
    update, again, candidate = run.split(along)
    if linear_first:
        return run.collected(along, update.op("Concat", again, candidate * r, axis=-1), first)
    sent = run.collected(along, along, first)
    rows = long(update.op("Concat", again, axis=-1)).op("Gemm", long(run.before), transA=1)
    sent[2] = rows.op("Concat", long(candidate).op("Gemm", long(reset), transA=1), axis=0)
    return sent
