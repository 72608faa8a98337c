from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.runtime.signature import Port

# Input and output that the gradient graph gains: coordinates in the explained output, (m, rank) and
# their values, (m,).
COORDINATES = "mollikit.coordinates"
SELECTED = "mollikit.selected"


def select_in_graph(gradient_model: onnx.ModelProto, output: Port) -> onnx.ModelProto:
    """Let a gradient graph take the coordinates of one element of ``output`` for each row.

    The selection ``GatherND(output, coordinates)`` is added as the output `SELECTED`, and the cotangent
    input becomes its adjoint, a scatter of ones at the coordinates. Those beyond an axis that is open in
    ``output`` give NaN.

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
    (replaced,) = [info for info in graph.input if info.name == cotangent]
    graph.input.remove(replaced)
    graph.value_info.append(replaced)  # its shape goes on to be known
    assert output.shape is not None
    where = helper.make_tensor_value_info(COORDINATES, TensorProto.INT64, [None, len(output.shape)])
    dtype = replaced.type.tensor_type.elem_type
    graph.input.append(where)
    graph.output.append(helper.make_tensor_value_info(SELECTED, dtype, [None]))

    taken = {weight.name for weight in graph.initializer} | {x for node in graph.node for x in node.output}
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    builder = GraphBuilder(opsets, {COORDINATES: where.type, output.name: replaced.type}, {}, taken)
    builder.scope = "mollikit"
    coordinates = builder.tensor(COORDINATES)
    rows = coordinates.dims(0, 1)
    zero, one = (builder.scalar(value, dtype) for value in (0.0, 1.0))
    ones = one.op("Expand", rows)
    if None in output.shape[1:]:
        shape = builder.tensor(output.name).dims()
        place = 1 + next(k for k, node in enumerate(graph.node) if output.name in node.output)
        # Kernels of a GPU take what is out of range for the nearest there is: NaN comes of it here, by 0 / 0.
        inside = coordinates.op("Min", shape - 1)
        right = (
            inside.op("Equal", coordinates).op("Cast", to=TensorProto.FLOAT).op("ReduceMin", [1], keepdims=0)
        )
        ones, coordinates = (right / right).op("Cast", to=dtype), inside
    else:
        # A shape known beforehand spares the gradient the last layer's forward pass.
        shape, place = rows.op("Concat", list(output.shape[1:]), axis=0), 0
    # Added where CUDA can, in single precision: over what is written it warns that elements may come twice.
    reduction = "add" if dtype == TensorProto.FLOAT else "none"
    zero.op("Expand", shape).op("ScatterND", coordinates, ones, reduction=reduction)
    builder.nodes[-1].output[0] = cotangent
    anywhere = f"{SELECTED}.anywhere"
    selection = [
        helper.make_node("GatherND", [output.name, coordinates.name], [anywhere]),
        helper.make_node("Mul", [anywhere, ones.name], [SELECTED]),
    ]
    nodes = [*graph.node[:place], *builder.nodes, *graph.node[place:], *selection]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(builder.constant_protos({name for node in builder.nodes for name in node.input}))
    return model


def selection(output: Port) -> onnx.ModelProto:
    """The selection by itself, as a model of ``output`` and `COORDINATES`."""
    assert output.shape is not None
    dtype = helper.np_dtype_to_tensor_dtype(output.dtype)
    given = helper.make_tensor_value_info(output.name, dtype, [None] * len(output.shape))
    where = helper.make_tensor_value_info(COORDINATES, TensorProto.INT64, [None, len(output.shape)])
    selected = helper.make_tensor_value_info(SELECTED, dtype, [None])
    node = helper.make_node("GatherND", [output.name, COORDINATES], [SELECTED])
    graph = helper.make_graph([node], "selection", [given, where], [selected])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
