from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mollikit_onnx.signature import Port

# Input and output that the gradient graph gains: coordinates in the explained output, (m, rank) and
# their values, (m,).
COORDINATES = "mollikit.coordinates"
SELECTED = "mollikit.selected"


def select_in_graph(gradient_model: onnx.ModelProto, output: Port) -> onnx.ModelProto:
    """Let a gradient graph take the coordinates of one element of ``output`` for each row.

    The selection ``GatherND(output, coordinates)`` is added as the output `SELECTED`, and the cotangent
    input becomes its adjoint, a scatter of ones at the coordinates. ONNX Runtime checks their range.

    Parameters
    ----------
    gradient_model : onnx.ModelProto
        A graph made by ``vjp(model, wrt, [output.name])``; not changed.
    output : Port
        The explained output, of known rank.

    Returns
    -------
    onnx.ModelProto
        The same graph with the int64 input `COORDINATES`, (m, rank), in place of the cotangent.
    """
    model = onnx.ModelProto()
    model.CopyFrom(gradient_model)
    graph = model.graph
    cotangent = f"{output.name}.cotangent"
    (taken,) = [info for info in graph.input if info.name == cotangent]
    element = taken.type.tensor_type.elem_type
    graph.input.remove(taken)
    graph.value_info.append(taken)  # its shape goes on to be known
    assert output.shape is not None
    rank = len(output.shape)
    graph.input.append(helper.make_tensor_value_info(COORDINATES, TensorProto.INT64, [None, rank]))
    graph.output.append(helper.make_tensor_value_info(SELECTED, element, [None]))

    name = "mollikit.{}".format
    zero, one = (helper.make_tensor(name(value), element, [1], [value]) for value in (0.0, 1.0))
    first, second = (numpy_helper.from_array(np.array([k]), name(f"axis{k}")) for k in (0, 1))
    graph.initializer.extend([first, second])
    nodes = [
        helper.make_node("Shape", [COORDINATES], [name("coordinates.shape")]),
        helper.make_node("Slice", [name("coordinates.shape"), first.name, second.name], [name("rows")]),
    ]
    if None in output.shape[1:]:
        nodes.append(helper.make_node("Shape", [output.name], [name("output.shape")]))
        place = 1 + next(k for k, node in enumerate(graph.node) if output.name in node.output)
    else:
        # A shape known beforehand spares the gradient the last layer's forward pass.
        row = numpy_helper.from_array(np.array(output.shape[1:], np.int64), name("row.shape"))
        graph.initializer.append(row)
        nodes.append(helper.make_node("Concat", [name("rows"), row.name], [name("output.shape")], axis=0))
        place = 0
    nodes += [
        helper.make_node("ConstantOfShape", [name("rows")], [name("ones")], value=one),
        helper.make_node("ConstantOfShape", [name("output.shape")], [name("zeros")], value=zero),
        helper.make_node("ScatterND", [name("zeros"), COORDINATES, name("ones")], [cotangent]),
    ]
    ordered = [*graph.node[:place], *nodes, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(ordered)
    graph.node.append(helper.make_node("GatherND", [output.name, COORDINATES], [SELECTED]))
    return model
