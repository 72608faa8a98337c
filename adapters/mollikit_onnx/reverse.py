from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, OperatorSetIdProto, TypeProto, helper

from mollikit_onnx.accumulation import accumulate
from mollikit_onnx.errors import ModelError, UnknownTensorError
from mollikit_onnx.fusion import forward_nodes
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import names_made, nodes_needed
from mollikit_onnx.graphs.tensor import FLOATS, Tensor
from mollikit_onnx.normal_form.normal_form import NormalForm, normal_form
from mollikit_onnx.rules import load_rules

_BLOCKED = ("Conv", "ConvTranspose")


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
    taken = {*_names(form), *(name for node in source.node for name in names_made(node))}
    graph = GraphBuilder(opsets, form.types, form.values, taken, straight_through=straight_through)
    outputs = [value.name for value in source.output]
    nodes = forward_nodes(form, graph, {*outputs, *wrt, *of})

    result = ModelProto()
    result.graph.name = f"{source.name}.vjp"
    result.graph.input.extend(source.input)
    result.graph.output.extend(source.output)
    cotangents: dict[str, Tensor] = {}
    for name in of:
        kind = graph.type_of(name)
        cotangents[name] = graph.declare(f"{name}.cotangent", kind)
        result.graph.input.append(helper.make_value_info(f"{name}.cotangent", kind))
    accumulate(nodes, graph, wrt, cotangents)
    for name in wrt:
        graph.scope = f"vjp/{name}"
        gradient = cotangents.get(name) or graph.tensor(name).zeros()
        graph.nodes.append(helper.make_node("Identity", [gradient.name], [f"{name}.gradient"]))
        result.graph.output.append(helper.make_value_info(f"{name}.gradient", form.types[name]))

    emitted, needed = nodes_needed(graph.nodes, [value.name for value in result.graph.output])
    result.graph.node.extend(emitted)
    # onnxruntime keeps together in its blocked layout what it knows to be of one shape, and infers that from
    # convolutions; of other domains onnx infers nothing. Telling more costs transformers up to 3%.
    told = (node for node in emitted if node.op_type in _BLOCKED or node.domain)
    made = {name for node in told for name in node.output if name}
    kinds = {name: graph.type_of(name) for name in sorted(made - {v.name for v in result.graph.output})}
    result.graph.value_info.extend(
        helper.make_value_info(name, kind) for name, kind in kinds.items() if kind.tensor_type.shape.dim
    )
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
