from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, OperatorSetIdProto, TypeProto, helper, shape_inference

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.pruning import names_read, nodes_needed, pruned, without_weights
from mollikit_onnx.mean_gates.averages import ROWS, Averages, Spread
from mollikit_onnx.mean_gates.chains import SHAPES, chains, varying
from mollikit_onnx.mean_gates.rectified import RectifiedLayer, rectified_layers
from mollikit_onnx.mean_gates.stand_ins import find_stand_in
from mollikit_onnx.mean_gates.work import multiplications
from mollikit_onnx.normal_form.functions import expanded
from mollikit_onnx.normal_form.normal_form import NormalForm, normal_form
from mollikit_onnx.reverse import vjp
from mollikit_onnx.rules import load_rules

# What these do is written out, so that the parts are averaged.
_WRITTEN_OUT = frozenset({"LayerNormalization", "GroupNormalization", "RMSNormalization"})


class NoMeanGateError(ModelError):
    """A nonlinear operator for which mean gates know no average.

    Attributes
    ----------
    op_type, domain, node_name : str
    """

    def __init__(self, op_type: str, domain: str, node_name: str) -> None:
        self.op_type, self.domain, self.node_name = op_type, domain or "ai.onnx", node_name
        super().__init__(
            f"operator {op_type} (domain {self.domain}), node {node_name!r}: it is not linear, and mean "
            "gates know no average for it; use mollikit.Pathwise, which needs the gradient alone"
        )


@dataclass(frozen=True)
class LinearModel:
    """A model made linear by averages: the graph that gives these, and the one that takes them.

    Attributes
    ----------
    forward : ModelProto
        From a batch of inputs to the averages over its rows.
    backward : ModelProto
        From the averages and ``"<of>.cotangent"`` to ``"<name>.gradient"`` for each of ``wrt``, of one row.
    means : tuple of str
        Plain means, by the names they have in both.
    spreads : tuple of Spread
        First and second moments about elementwise nonlinearities.
    stood_in : tuple of str
        The operators that were made linear.
    straight : ModelProto
        The linear model itself, of one row: it takes the averages and gives ``of`` and what is rectified.
    rectified : tuple of RectifiedLayer
    work : int
        Multiplications of a forward pass of one row.
    """

    forward: ModelProto
    backward: ModelProto
    means: tuple[str, ...]
    spreads: tuple[Spread, ...]
    stood_in: tuple[str, ...]
    straight: ModelProto
    rectified: tuple[RectifiedLayer, ...]
    work: int

    @property
    def averaged(self) -> tuple[str, ...]:
        """The inputs of the linear model that are averages."""
        of_spreads = (n for s in self.spreads for n in (s.mean, s.squares, s.products, s.variance))
        return (*self.means, *of_spreads)


def linear_model(
    model: ModelProto, shapes: dict[str, tuple[int, ...]], wrt: Sequence[str], of: str, prior: float
) -> LinearModel:
    """Make a model linear in ``wrt``: every nonlinear operator on the way to ``of`` by averages.

    Parameters
    ----------
    model : ModelProto
        Left as it is. The first axis of its tensors is the batch.
    shapes : dict
        Shape of each input for one row, (1, ...).
    wrt : sequence of str
    of : str
    prior : float
        How many passes the slope of a normal source counts for.

    Raises
    ------
    NoMeanGateError
        If an operator on the way is neither linear nor has a stand-in.
    """
    load_rules()
    batch = _form(_with_sizes(model, shapes, free_batch=True), wrt, of)
    row = _form(_with_sizes(model, shapes, free_batch=False), wrt, of)
    seen, linear = _builder(batch), _builder(row)
    for node in batch.model.graph.node:
        seen.adopt(node)
    nodes, _ = nodes_needed(row.model.graph.node, [of])
    reached = varying(nodes, wrt)
    for node in nodes:
        linear.adopt(node)
    found = chains(nodes, reached, [of], lambda name: linear.tensor(name).sizes)
    rectified = rectified_layers(found, nodes, linear, reached)
    work = multiplications(nodes, lambda name: linear.tensor(name).sizes)
    averages = Averages(seen, linear, prior)
    linear.nodes.clear()
    stood_in: list[str] = []
    for node in nodes:
        seen.scope = linear.scope = f"mean_gates/{node.name or node.output[0]}"
        chain = found.get(node.output[0])
        if chain is not None:
            value = linear.tensor(chain.source) * averages.gain(chain)
            stood_in.extend(part.op_type for part in chain.nodes)
        elif (make := find_stand_in(here := Node(node, linear, reached))) is not None:
            value = make(Node(node, seen, reached), here, averages)
            stood_in.append(node.op_type)
        else:
            linear.nodes.append(node)
            continue
        linear.nodes.append(helper.make_node("Identity", [value.name], [node.output[0]], name=linear.scope))
    spread_outputs = [n for s in averages.spreads for n in (s.mean, s.squares, s.leaf, s.products)]
    taken = [
        *averages.means,
        *(n for s in averages.spreads for n in (s.mean, s.squares, s.products, s.variance)),
    ]
    forward = _assembled(batch, seen, [], [*averages.means, *spread_outputs])
    straight = _assembled(row, linear, taken, [of])
    gradients = [f"{name}.gradient" for name in wrt]
    backward = pruned(vjp(straight, wrt, [of]), gradients)
    _refuse_nonlinear(backward, straight.graph.node, wrt, gradients)
    unique = tuple(dict.fromkeys(stood_in))
    sources = dict.fromkeys(layer.source for layer in rectified)
    shown = _assembled(row, linear, taken, [of, *(name for name in sources if name != of)])
    return LinearModel(
        forward,
        backward,
        tuple(averages.means),
        tuple(averages.spreads),
        unique,
        shown,
        rectified,
        work,
    )


def _with_sizes(model: ModelProto, shapes: dict[str, tuple[int, ...]], free_batch: bool) -> ModelProto:
    """Write the sizes of the inputs into a copy; a batch axis that is fixed at one row stays so."""
    copy = without_weights(model)
    copy.graph.initializer.extend(model.graph.initializer)
    copy.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for value in copy.graph.input:
        if value.name in shapes:
            kind = value.type.tensor_type
            fixed = kind.shape.dim and kind.shape.dim[0].dim_value == 1
            sizes = [ROWS if free_batch and not fixed else 1, *shapes[value.name][1:]]
            value.type.CopyFrom(helper.make_tensor_type_proto(kind.elem_type, sizes))
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        if value.type.tensor_type.HasField("shape"):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
    return copy


def _form(model: ModelProto, wrt: Sequence[str], of: str) -> NormalForm:
    if any(node.op_type in _WRITTEN_OUT for node in model.graph.node):
        model = _written_out(model)
    return normal_form(model, wrt, [of])


def _written_out(model: ModelProto) -> ModelProto:
    # The inliner asks for the types of weights, and finds them where they stand in as inputs.
    shell, declared = without_weights(model), {value.name for value in model.graph.input}
    weights = [w for w in model.graph.initializer if w.name not in declared]
    shell.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    shell = shape_inference.infer_shapes(shell)
    graph = shell.graph
    types = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    result = expanded(shell, types, lambda node: node.op_type in _WRITTEN_OUT)
    if result is None:
        return model
    kept = [value for value in result.graph.input if value.name in declared]
    del result.graph.input[:], result.graph.value_info[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(model.graph.initializer)
    result.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return result


def _builder(form: NormalForm) -> GraphBuilder:
    opsets = {opset.domain or "": opset.version for opset in form.model.opset_import}
    graph = form.model.graph
    taken = {value.name for value in graph.input} | set(form.weights)
    taken |= {name for node in graph.node for name in node.output}
    return GraphBuilder(opsets, form.types, form.values, taken)


def _assembled(form: NormalForm, graph: GraphBuilder, taken: list[str], given: list[str]) -> ModelProto:
    result = ModelProto()
    result.graph.name = "mollikit.mean_gates"
    nodes, needed = nodes_needed(graph.nodes, given)
    result.graph.node.extend(nodes)
    result.graph.input.extend(form.model.graph.input)
    result.graph.input.extend(helper.make_value_info(name, graph.type_of(name)) for name in taken)
    result.graph.output.extend(helper.make_value_info(name, TypeProto()) for name in given)
    result.graph.initializer.extend(graph.constant_protos(needed))
    overridable = {value.name for value in form.model.graph.input}
    result.graph.initializer.extend(w for n, w in form.weights.items() if n in needed or n in overridable)
    result.graph.sparse_initializer.extend(form.model.graph.sparse_initializer)
    result.functions.extend(form.model.functions)
    result.opset_import.extend(OperatorSetIdProto(domain=d, version=v) for d, v in graph.opsets.items())
    result.ir_version = form.model.ir_version
    return result


def _refuse_nonlinear(
    backward: ModelProto, nodes: Sequence[NodeProto], wrt: Sequence[str], gradients: Sequence[str]
) -> None:
    """Name the operator whose backward pass reads what the forward one made: it is not linear."""
    needed, _ = nodes_needed(backward.graph.node, gradients)
    reached = varying(needed, wrt)
    made = {name: node for node in nodes for name in node.output}
    for node in needed:
        ours = set(node.output) <= made.keys() or node.op_type in SHAPES
        culprits = [name for name in names_read(node) if name in reached]
        if ours or not culprits:
            continue
        owner = next(
            (n for n in nodes if node.name.startswith(f"vjp/{n.name or n.output[0]}/")), made.get(culprits[0])
        )
        if owner is not None:
            raise NoMeanGateError(owner.op_type, owner.domain, owner.name or owner.output[0])
