"""If, Scan and Loop: their graphs are written out again, with the reverse mode inside.

A branch, a step or a round is computed again from what it started from, and its cotangents are pulled back
right after. What steps and rounds started from is kept by the forward node, stacked in further outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from mollikit_onnx.accumulation import accumulate, add_to, in_place
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.recurrence import enclosed, formal_input
from mollikit_onnx.graphs.subgraphs import Body
from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.rounds import Rounds, Sliced, is_fixed, keep, keep_each, needed_inside, steady

_INTEGER = helper.make_tensor_type_proto(TensorProto.INT64, ())
_TRUTH = helper.make_tensor_type_proto(TensorProto.BOOL, ())


@rule("If")
def if_(node: Node, *cotangents: Tensor | None) -> Sent:
    """The branch that was taken has the cotangents; what the other alone reads has zeros."""
    asked = [x for x, wanted in zip(node.captured, node.wanted[1:], strict=True) if wanted]
    branches = {}
    for name in ("then_branch", "else_branch"):
        body = Body.of(node.attribute(name), node.graph.inner())
        found: dict[str, Tensor] = {}
        for y, g in zip(body.outputs, cotangents, strict=True):
            if g is not None:
                add_to(found, y, body.inner.within(g))
        accumulate(body.nodes, body.inner, [x.name for x in asked], found)
        sent = [found.get(x.name) or body.inner.within(x).zeros() for x in asked]
        branches[name] = enclosed(body.inner, name, [], sent)
    made = node.graph.ops(len(asked), "If", node.x, **branches)
    return [None, *in_place(node.wanted[1:], _typed(asked, made))]


@rule("Scan", since=9)
def scan(node: Node, *cotangents: Tensor | None) -> Sent:
    """Backwards over the same sequences, with the states that each step started from."""
    graph, steps = node.graph, node.attribute("body")
    n_sequences = node.attribute("num_scan_inputs")
    n_states = len(node.inputs) - n_sequences
    states = node.inputs[:n_states]
    if len(steps.input) != len(node.inputs):
        node.refuse("its inputs are not those of its body, as in opset 8; export it at opset 18")
    _name_outputs(node, len(steps.output))
    sequences = [Sliced.of(node, "input", k, x) for k, x in enumerate(node.inputs[n_states:])]
    given = [*cotangents, *[None] * len(steps.output)][n_states : len(steps.output)]
    stacked = [None if g is None else Sliced.of(node, "output", k, g) for k, g in enumerate(given)]

    inner = graph.inner()
    before = [formal_input(inner, x, x.shape) for x in states]
    slices = [x.formal(inner) for x in sequences]
    arriving = [None if g is None else g.formal(inner) for g in stacked]
    body = Body.of(steps, inner, [*before, *slices])
    wanted = node.wanted[n_states : len(node.inputs)]
    asked = [x for x, is_wanted in zip(slices, wanted, strict=True) if is_wanted]
    captured, sums = _asked_captured(node, inner)
    rounds = Rounds(node, body, before, node.wanted[:n_states], 0, [*asked, *map(inner.within, captured)])
    earlier, found = rounds.pulled_back(arriving)
    of_slices = [x.zeros() if g is None else g for x, g in zip(asked, found, strict=False)]
    outputs = [*earlier, *_added(sums, found[len(asked) :]), *of_slices]

    used = needed_inside(inner, outputs)
    kinds = [graph.type_of(x.name) for x in before]
    kept = [(x, Sliced(keep(node, steps, k, kinds[k]), 0, 0)) for k, x in enumerate(before) if x.name in used]
    both = zip([*slices, *arriving], [*sequences, *stacked], strict=True)
    pairs = [(x, whole) for x, whole in both if x and whole]
    read = [*kept, *(pair for pair in pairs if pair[0].name in used)] or pairs[:1]
    returned = [x for x, is_wanted in zip(sequences, wanted, strict=True) if is_wanted]
    starts = [_started(node, k, cotangents, states[k]) for k in rounds.live]
    formal = [*rounds.carried, *sums, *(x for x, _ in read)]
    name = graph.fresh(f"{graph.scope}/backwards")
    made = graph.ops(
        len(outputs),
        "Scan",
        *starts,
        *(x.zeros() for x in captured),
        *(x.whole for _, x in read),
        body=enclosed(inner, name, formal, outputs),
        num_scan_inputs=len(read),
        scan_input_axes=[x.axis for _, x in read],
        scan_input_directions=[1 - x.direction for _, x in read],
        scan_output_axes=[x.axis for x in returned],
        scan_output_directions=[1 - x.direction for x in returned],
    )
    made = _typed([*(states[k] for k in rounds.live), *captured, *(x.whole for x in returned)], made)
    by_place = dict(zip(rounds.live, made, strict=False))
    placed = [by_place.get(k) for k in range(n_states)]
    behind = made[len(rounds.live) :]
    turned = in_place(wanted, behind[len(captured) :])
    return [*placed, *turned, *in_place(node.wanted[len(node.inputs) :], behind)]


@rule("Loop")
def loop(node: Node, *cotangents: Tensor | None) -> Sent:
    """Backwards over the rounds that were run, with the values that each started from."""
    graph, turns = node.graph, node.attribute("body")
    states = node.inputs[2:]
    _name_outputs(node, len(turns.output) - 1)
    inner = graph.inner()
    number = inner.declare(inner.fresh(f"{graph.scope}/round"), _INTEGER)
    going = inner.constant(np.array(True))
    kinds = steady(turns, graph, states, [number, going])
    before = [inner.declare(inner.fresh(f"{graph.scope}/before"), kind) for kind in kinds]
    body = Body.of(turns, inner, [number, going, *before])
    captured, sums = _asked_captured(node, inner)
    wanted = node.wanted[2 : len(node.inputs)]
    rounds = Rounds(node, body, before, wanted, 1, [inner.within(x) for x in captured])
    stacked = [*cotangents, *[None] * len(turns.output)][len(states) : len(turns.output) - 1]
    arriving = [None if g is None else inner.within(g).op("Gather", number) for g in stacked]
    earlier, found = rounds.pulled_back(arriving)
    outputs = [*earlier, *_added(sums, found)]

    # The rounds are counted by what numbers they had.
    count = keep(node, turns, 0, _INTEGER).op("Size")
    last = count - 1
    reverse = inner.declare(inner.fresh(f"{graph.scope}/reverse"), _INTEGER)
    still = inner.declare(inner.fresh(f"{graph.scope}/still"), _TRUTH)
    used = needed_inside(inner, outputs)
    heads = [helper.make_node("Sub", [last.name, reverse.name], [number.name])]
    growing = len(states)
    for k, x in enumerate(before):
        if x.name in used and is_fixed(kinds[k]):
            whole = keep(node, turns, 2 + k, kinds[k])
            heads.append(helper.make_node("Gather", [whole.name, number.name], [x.name], axis=0))
        elif x.name in used:
            each = keep_each(node, turns, 2 + k, growing)
            heads.append(helper.make_node("SequenceAt", [each, number.name], [x.name]))
            growing += 1
    inner.nodes[:0] = heads
    formal = [reverse, still, *rounds.carried, *sums]
    name = graph.fresh(f"{graph.scope}/backwards")
    starts = [_started(node, k, cotangents, states[k]) for k in rounds.live]
    made = graph.ops(
        len(outputs),
        "Loop",
        count,
        None,
        *starts,
        *(x.zeros() for x in captured),
        body=enclosed(inner, name, formal, [still, *outputs]),
    )
    made = _typed([*(states[k] for k in rounds.live), *captured], made)
    by_place = dict(zip(rounds.live, made, strict=False))
    placed = [by_place.get(k) for k in range(len(states))]
    return [None, None, *placed, *in_place(node.wanted[len(node.inputs) :], made[len(rounds.live) :])]


def _asked_captured(node: Node, inner: GraphBuilder) -> tuple[list[Tensor], list[Tensor]]:
    """What a body reads from outside and is asked for, and the sums of its cotangents so far, inside."""
    wanted = node.wanted[len(node.inputs) :]
    captured = [x for x, is_wanted in zip(node.captured, wanted, strict=True) if is_wanted]
    return captured, [formal_input(inner, x, x.shape) for x in captured]


def _added(sums: Sequence[Tensor], found: Sequence[Tensor | None]) -> list[Tensor]:
    return [total if g is None else total + g for total, g in zip(sums, found, strict=True)]


def _started(node: Node, k: int, cotangents: Sequence[Tensor | None], state: Tensor) -> Tensor:
    """Cotangent of a carried value as the last round ends."""
    g = cotangents[k] if k < len(cotangents) else None
    return (
        node.output(k, state.dtype, None if state.shape is None else (None,) * state.rank).zeros()
        if g is None
        else g
    )


def _name_outputs(node: Node, n: int) -> None:
    """Name all outputs of a forward node, so that further ones can follow."""
    names = [*node.proto.output, *[""] * n][: max(n, len(node.proto.output))]
    node.proto.output[:] = [name or node.graph.fresh(f"{node.graph.scope}/output") for name in names]


def _typed(like: Sequence[Tensor], made: Sequence[Tensor]) -> list[Tensor]:
    """Declare the outputs of a node with graphs: each has the type of the tensor that it belongs to."""
    return [x.graph.declare(y.name, x.graph.type_of(x.name)) for x, y in zip(like, made, strict=True)]
