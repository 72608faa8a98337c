from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorShapeProto

from mollikit_onnx.graphs.pruning import names_read

Dim = TensorShapeProto.Dimension
# The operator of an Einsum whose result is declared, while shapes are inferred: onnx does not know it and
# keeps the declaration, where by its own inference a size of 1 would overrule a symbol.
_DECLARED = "Einsum.declared"


def corrected(model: ModelProto, inferred: ModelProto, done: set[str]) -> bool:
    """Declare, in place, results of Einsums that onnx took for smaller than they are, the first on each way.

    Onnx takes the size of a letter from the first operand that has it. An axis of size 1 stands for any other
    size there, and a symbol may be 1. Shapes that followed from the wrong one are dropped. The node goes by
    another name until it is `restored`.

    Parameters
    ----------
    model, inferred : ModelProto
        A model, and what onnx's shape inference makes of it.
    done : set of str
        Outputs that have been looked at; extended.
    """
    graph = inferred.graph
    if all(node.op_type != "Einsum" for node in graph.node):
        return False
    shapes = {w.name: [Dim(dim_value=size) for size in w.dims] for w in graph.initializer}
    kinds = {w.name: w.data_type for w in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = list(value.type.tensor_type.shape.dim)
    declared, reached = set[str](), set[str]()
    for place, node in enumerate(graph.node):
        if not reached.isdisjoint(names_read(node)):
            reached.update(node.output)
        elif node.op_type == "Einsum" and not node.domain and node.output[0] not in done:
            name, dims = node.output[0], _result(node, shapes)
            done.add(name)
            if dims is not None and dims != shapes.get(name):
                _declare(model, name, kinds[node.input[0]], dims)
                model.graph.node[place].op_type = _DECLARED
                declared.add(name)
                reached.update(node.output)
    for value in model.graph.value_info:
        if value.name in reached - declared:
            value.type.tensor_type.ClearField("shape")
    return bool(declared)


def restored(model: ModelProto) -> None:
    """Give the nodes that were declared their own name again, in place."""
    for node in model.graph.node:
        if node.op_type == _DECLARED:
            node.op_type = "Einsum"


def _result(node: NodeProto, shapes: Mapping[str, list[Dim]]) -> list[Dim] | None:
    equations = [a.s.decode(errors="replace") for a in node.attribute if a.name == "equation"]
    if not equations or not all(name in shapes for name in node.input):
        return None
    equation = equations[0].replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:
        seen = Counter(left.replace(",", "").replace("...", ""))
        right = "..." * ("..." in left) + "".join(sorted(c for c in seen if seen[c] == 1))
    sizes: dict[str | int, list[Dim]] = {}
    longest = 0
    for term, name in zip(left.split(","), node.input, strict=False):
        axes = _axes(term, len(shapes[name]) - len(term.replace("...", "")))
        longest = max(longest, *(key for key in axes if isinstance(key, int)), 0)
        for key, dim in zip(axes, shapes[name], strict=False):
            sizes.setdefault(key, []).append(dim)
    keys = _axes(right, longest)
    if not all(key in sizes for key in keys):
        return None
    return [_broadcast(sizes[key], f"{node.output[0]}.{key}") for key in keys]


def _axes(term: str, hidden: int) -> list[str | int]:
    """Letters of a term; axes of an ellipsis are numbers, counted from its last."""
    before, dots, after = term.partition("...")
    return [*before, *(range(hidden, 0, -1) if dots else ()), *after]


def _broadcast(dims: list[Dim], fresh: str) -> Dim:
    larger = [dim for dim in dims if dim.dim_value != 1]
    fixed = [dim for dim in larger if dim.HasField("dim_value")]
    if fixed or not larger:
        return (fixed or dims)[0]
    return larger[0] if all(dim == larger[0] and dim.dim_param for dim in larger) else Dim(dim_param=fresh)


def _declare(model: ModelProto, name: str, elem_type: int, dims: list[Dim]) -> None:
    values = [v for v in (*model.graph.output, *model.graph.value_info) if v.name == name]
    kind = (values[0] if values else model.graph.value_info.add(name=name)).type.tensor_type
    kind.elem_type = elem_type
    del kind.shape.dim[:]
    kind.shape.dim.extend(dims)
