from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.pruning import names_read, nodes_needed
from mollikit_onnx.normal_form.normal_form import NormalForm


def forward_nodes(form: NormalForm, graph: GraphBuilder, visible: Collection[str]) -> list[NodeProto]:
    """Emit the forward nodes, the linear neighbours of convolutions taken into them.

    A zero Pad before a convolution becomes its pads, a BatchNormalization after it becomes part of its
    weights: the cotangent then passes one operator in place of three. The new weights are computed in
    the graph, so the model's own initializers can still be overridden; where they are not, they fold.
    The shape that a Reshape takes becomes a constant where it can.

    Parameters
    ----------
    form : NormalForm
        The model.
    graph : GraphBuilder
        Where the nodes go.
    visible : collection of str
        Tensors that must go on to exist; what none of them needs is left out.
    """
    live, _ = nodes_needed(form.model.graph.node, visible)
    uses = Counter(name for node in live for name in names_read(node))
    uses.update(visible)
    producers: dict[str, NodeProto] = {}
    for node in live:
        before = producers.get(node.input[0]) if node.input and uses[node.input[0]] == 1 else None
        if before is not None and node.op_type == "Conv" and before.op_type == "Pad":
            node = _with_pads(before, node, graph)
        elif before is not None and node.op_type == "BatchNormalization" and before.op_type == "Conv":
            node = _with_scale(before, node, form, graph)
        elif node.op_type == "Reshape":
            node = _with_sizes(node, graph)
        graph.adopt(node)
        producers.update(dict.fromkeys(node.output, node))
    return nodes_needed(graph.nodes, visible)[0]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _copy(node: NodeProto, inputs: list[str], **attributes: Any) -> NodeProto:
    copy = NodeProto(
        name=node.name, op_type=node.op_type, domain=node.domain, input=inputs, output=node.output
    )
    kept: list[AttributeProto] = [a for a in node.attribute if a.name not in attributes]
    copy.attribute.extend(kept)
    copy.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return copy


def _with_sizes(reshape: NodeProto, graph: GraphBuilder) -> NodeProto:
    """The one size that is not known beforehand need not be computed: Reshape finds it."""
    sizes = graph.tensor(reshape.output[0]).shape
    unknown = [size for size in sizes or () if not isinstance(size, int)]
    if sizes is None or len(unknown) != 1 or 0 in sizes or graph.value(reshape.input[1]) is not None:
        return reshape
    target = np.array([size if isinstance(size, int) else -1 for size in sizes], np.int64)
    return _copy(reshape, [reshape.input[0], graph.constant(target).name])


def _with_pads(pad: NodeProto, conv: NodeProto, graph: GraphBuilder) -> NodeProto:
    own = _attributes(conv)
    amounts = graph.value(pad.input[1])
    value = graph.value(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else 0
    if amounts is None or value is None or value != 0 or (len(pad.input) > 3 and pad.input[3]):
        return conv
    if _attributes(pad).get("mode", b"constant") != b"constant":
        return conv
    if own.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return conv
    begin, end = amounts[: len(amounts) // 2], amounts[len(amounts) // 2 :]
    if amounts.min() < 0 or any(begin[:2]) or any(end[:2]):
        return conv
    spatial = [*begin[2:], *end[2:]]
    pads = own.get("pads", [0] * len(spatial))
    total = [int(a + b) for a, b in zip(pads, spatial, strict=True)]
    return _copy(conv, [pad.input[0], *conv.input[1:]], pads=total, auto_pad="NOTSET")


def _with_scale(conv: NodeProto, norm: NodeProto, form: NormalForm, graph: GraphBuilder) -> NodeProto:
    own = _attributes(norm)
    parameters = [*conv.input[1:], *norm.input[1:]]
    if own.get("training_mode", 0) or not all(name in form.weights for name in parameters):
        return norm
    if len({form.weights[name].data_type for name in parameters}) > 1:
        return norm
    graph.scope = f"vjp/{norm.name}"
    scale, shift, mean, variance = (graph.tensor(name) for name in norm.input[1:])
    weight = graph.tensor(conv.input[1])
    factor = scale / (variance + own.get("epsilon", 1e-5)).op("Sqrt")
    bias = shift - mean * factor
    if len(conv.input) > 2:
        bias = bias + graph.tensor(conv.input[2]) * factor
    scaled = weight * factor.op("Unsqueeze", list(range(1, weight.rank)))
    merged = _copy(conv, [conv.input[0], scaled.name, bias.name])
    merged.name, merged.output[:] = norm.name, [norm.output[0]]
    return merged
