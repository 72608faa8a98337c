from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, OperatorSetIdProto, TypeProto, helper

from mollikit_onnx.activity import QUANTISERS, active_path, has_rule
from mollikit_onnx.errors import ModelError, UnknownTensorError, UnsupportedOperatorError
from mollikit_onnx.fusion import forward_nodes
from mollikit_onnx.graph import GraphBuilder
from mollikit_onnx.node import Node
from mollikit_onnx.normal_form import NormalForm, normal_form
from mollikit_onnx.pruning import names_read, nodes_needed
from mollikit_onnx.registry import find_rule
from mollikit_onnx.rules import load_rules
from mollikit_onnx.tensor import FLOATS, Tensor

# Operators that serve integers that stand for floats.
_ON_CODES = frozenset(
    {
        "Cast",
        "Concat",
        "ConvInteger",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MatMulInteger",
        "MaxPool",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def vjp(
    model: ModelProto,
    wrt: Sequence[str],
    of: Sequence[str],
    *,
    opset: int | None = None,
    straight_through: bool = False,
) -> ModelProto:
    """Reverse-mode gradient of an ONNX model, as an ONNX model.

    The new model takes the inputs of the old one and, for each name in ``of``, the input
    ``"<name>.cotangent"`` of that tensor's shape. It returns the outputs of the old one and, for each
    name in ``wrt``, the output ``"<name>.gradient"``: the cotangents times the Jacobian of ``of``
    with respect to ``wrt``. It holds standard operators only. Where a function has a kink (Relu at 0,
    the maximum of equal numbers) the gradient is one of its one-sided ones or lies between them.

    Parameters
    ----------
    model : onnx.ModelProto
        The forward model, of any operator set that onnx can convert to 18 or later. Left as it is.
    wrt : sequence of str
        Tensors to differentiate with respect to: inputs, initializers or intermediate ones.
    of : sequence of str
        Tensors to differentiate: outputs or intermediate ones.
    opset : int, optional
        Version of the default operator set of the new model, from 18 to 26; by default that of the model,
        brought into this range.
    straight_through : bool
        Whether quantisation may lie between them: the derivative of its rounding, which is zero almost
        everywhere, is then taken as 1 in the range of the integers and 0 outside. By default such a model
        is refused.

    Returns
    -------
    onnx.ModelProto
        A new model; sizes that were symbolic stay symbolic.

    Raises
    ------
    UnknownTensorError
        If a name is not in the model; the message lists those that are.
    UnsupportedOperatorError
        If an operator between ``wrt`` and ``of`` has no rule.
    OpsetError
        If the operator set of the model can be neither used nor converted.

    Notes
    -----
    The rules are those of reverse accumulation; see Griewank and Walther, "Evaluating Derivatives",
    2nd edition, 2008, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> import onnx.parser
    >>> from onnx.reference import ReferenceEvaluator
    >>> square = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 20]>
    ...     square (float[N] x) => (float[N] y) { y = Mul(x, x) }''')
    >>> gradient = vjp(square, wrt=["x"], of=["y"])
    >>> x = np.array([1, 2, 3], np.float32)
    >>> ReferenceEvaluator(gradient).run(["x.gradient"], {"x": x, "y.cotangent": np.ones_like(x)})
    [array([2., 4., 6.], dtype=float32)]
    """
    load_rules()
    wrt, of = list(dict.fromkeys(wrt)), list(dict.fromkeys(of))
    form = normal_form(model, wrt, of, opset)
    _check_names(form, wrt, of)
    source = form.model.graph
    opsets = {opset.domain: opset.version for opset in form.model.opset_import}
    opsets[""] = opsets.pop("ai.onnx", 0) or opsets[""]
    graph = GraphBuilder(opsets, form.types, form.values, set(_names(form)))
    outputs = [value.name for value in source.output]
    nodes = forward_nodes(form, graph, {*outputs, *wrt, *of})
    active, path = active_path(nodes, wrt, of, lambda name: graph.tensor(name).dtype, opsets)
    for node in path:
        if not has_rule(node, opsets):
            reason = "no rule for its gradient, and it lies between wrt and of"
            raise UnsupportedOperatorError(node.op_type, node.domain, node.name or node.output[0], reason)
    _check_codes(path, active, graph, straight_through)

    result = ModelProto()
    result.graph.name = f"{source.name}.vjp"
    result.graph.input.extend(source.input)
    result.graph.output.extend(source.output)
    cotangents: dict[str, Tensor] = {}
    for name in of:
        kind = graph.type_of(name)
        cotangents[name] = graph.declare(f"{name}.cotangent", kind)
        result.graph.input.append(helper.make_value_info(f"{name}.cotangent", kind))
    for node in reversed(path):
        _pull_back(Node(node, graph, active), cotangents)
    for name in wrt:
        graph.scope = f"vjp/{name}"
        gradient = cotangents.get(name) or _zeros(graph.tensor(name))
        graph.nodes.append(helper.make_node("Identity", [gradient.name], [f"{name}.gradient"]))
        result.graph.output.append(helper.make_value_info(f"{name}.gradient", form.types[name]))

    emitted, needed = nodes_needed(graph.nodes, [value.name for value in result.graph.output])
    result.graph.node.extend(emitted)
    result.graph.initializer.extend(graph.constant_protos(needed))
    overridable = {value.name for value in source.input}
    result.graph.initializer.extend(
        weight for name, weight in form.weights.items() if name in needed or name in overridable
    )
    result.graph.sparse_initializer.extend(source.sparse_initializer)
    result.functions.extend(form.model.functions)
    result.opset_import.extend(OperatorSetIdProto(domain=d, version=v) for d, v in opsets.items())
    result.ir_version = form.model.ir_version
    result.producer_name = "mollikit"
    return result


def _names(form: NormalForm) -> list[str]:
    graph = form.model.graph
    names = [value.name for value in graph.input] + list(form.weights)
    return names + [name for node in graph.node for name in node.output if name]


def _check_names(form: NormalForm, wrt: Sequence[str], of: Sequence[str]) -> None:
    graph = form.model.graph
    if not wrt or not of:
        raise ModelError("wrt and of must each name at least one tensor")
    names = set(_names(form))
    shown = {"wrt": [value.name for value in graph.input], "of": [value.name for value in graph.output]}
    for role, asked, suffix in (("wrt", wrt, "gradient"), ("of", of, "cotangent")):
        for name in asked:
            if name not in names:
                raise UnknownTensorError(role, name, shown[role])
            kind = form.types.get(name, TypeProto()).tensor_type.elem_type
            if kind not in FLOATS:
                raise ModelError(
                    f"{role}: tensor {name!r} is not of a floating-point type; it has no gradient"
                )
            if f"{name}.{suffix}" in names:
                raise ModelError(f"the model has a tensor {name}.{suffix} already; rename it there first")


def _check_codes(
    path: Sequence[NodeProto], active: set[str], graph: GraphBuilder, straight_through: bool
) -> None:
    """Refuse quantisation that was not asked for, and what is not known to be right for integers."""
    for node in path:
        codes = [n for n in names_read(node) if n in active and graph.tensor(n).dtype not in FLOATS]
        if node.op_type in QUANTISERS and not straight_through:
            reason = (
                "rounding has the derivative zero almost everywhere; pass straight_through=True to take it "
                "as 1 in the range of the integers"
            )
        elif codes and node.op_type not in _ON_CODES:
            reason = f"it computes with the quantised integers {codes[0]!r}, which is not covered"
        else:
            continue
        raise UnsupportedOperatorError(node.op_type, node.domain, node.name or node.output[0], reason)


def _pull_back(node: Node, cotangents: dict[str, Tensor]) -> None:
    graph = node.graph
    arrived = [cotangents.get(name) for name in node.proto.output]
    graph.scope = f"vjp/{node.proto.name or node.proto.output[0]}"
    if len(arrived) > 1:
        arrived = [
            _zeros(y) if g is None and y is not None and y.dtype in FLOATS else g
            for g, y in zip(arrived, node.outputs, strict=True)
        ]
    rule = find_rule(node.proto.domain, node.proto.op_type, graph.opsets.get(node.proto.domain, 1))
    assert rule is not None
    sent = list(rule(node, *arrived))
    sent += [None] * (len(node.inputs) - len(sent))
    for x, wanted, g in zip(node.inputs, node.wanted, sent, strict=False):
        if not wanted:
            continue
        if g is None:
            node.refuse(f"its rule has no gradient for the input {x.name!r}")
        before = cotangents.get(x.name)
        total = g if before is None else before + g
        # Integers that stand for floats have the cotangents of these.
        cotangents[x.name] = graph.typed(total, x) if x.dtype in FLOATS else total.shaped(x.shape)


def _zeros(x: Tensor) -> Tensor:
    return x.graph.scalar(0.0, x.dtype).expanded_like(x)
