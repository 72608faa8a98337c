"""What is refused before onnx's own passes see a model: they may hang or end the process over it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, numpy_helper

from mollikit_onnx.errors import ModelError, OpsetError
from mollikit_onnx.graphs.pruning import captured, subgraphs
from mollikit_onnx.registry import expandable, registered

_TERM = r"[a-zA-Z]*(?:\.\.\.[a-zA-Z]*)?"
_EQUATION = re.compile(rf"{_TERM}(?:,{_TERM})*(?:->{_TERM})?")
# Onnx counts versions, and the steps through a shape, in integers of 32 bits.
_BEYOND = 2**31
# By these they, and onnxruntime, divide.
_COUNTS = {"blocksize", "dilations", "group", "kernel_shape", "num_groups", "num_outputs", "size", "strides"}
_COUNTS |= {"hidden_size", "kv_num_heads", "q_num_heads"}
_MOST_CALLS = 10_000
_SINGLE = defs.OpSchema.FormalParameterOption.Single


def left_over(node: NodeProto) -> str | None:
    """What to do about a node of the default domain that is of no operator there."""
    known = defs.has(node.op_type) or ("", node.op_type) in (*registered(), *expandable())
    if node.domain not in ("", "ai.onnx") or known:
        return None
    return (
        "ONNX has no such operator, and a converter has left it there, as tf2onnx does with the Erfc of an "
        "exact Keras gelu: Erfc(x) is 1 - Erf(x), and gelu(approximate=True) has none"
    )


def check_nodes(model: ModelProto) -> None:
    """Refuse nodes that are not as their operators want them, in the graph, inside of it and in functions.

    Raises
    ------
    ModelError
        A node has no output; it lacks an input or an attribute, or has one of another type or out of all
        proportion; the equation of an Einsum is none; a constant does not hold its elements.
    OpsetError
        The version of an operator set is no version.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    # A function comes with the attributes that it has from its caller: one may be an equation. What is large
    # goes by names, which hold in a graph and those inside of it.
    todo: list[tuple[Any, Any, Mapping[str, Any], set[str]]] = [(model.graph, model.opset_import, {}, set())]
    seen = set[tuple[Any, ...]]()
    while todo:
        graph, imports, bound, large = todo.pop()
        opsets = {opset.domain: opset.version for opset in imports}
        for domain, version in opsets.items():
            if abs(version) >= _BEYOND or (version < 1 and domain in ("", "ai.onnx")):
                raise OpsetError(f"there is no version {version} of the operator set {domain or 'ai.onnx'!r}")
        opsets[""] = opsets.get("") or opsets.get("ai.onnx", 0)
        for weight in getattr(graph, "initializer", ()):
            (large.add if _is_large(weight) else large.discard)(weight.name)
        for node in graph.node:
            given = {a.name: bound.get(a.ref_attr_name, a) for a in node.attribute}
            todo.extend((g, imports, bound, large - {v.name for v in g.input}) for g in subgraphs(node))
            large.difference_update(node.output)
            if any(max(a.i, -a.i, *map(abs, a.ints), 0) >= _BEYOND or _is_large(a.t) for a in given.values()):
                large.update(filter(None, node.output))
            version = opsets.get("" if node.domain == "ai.onnx" else node.domain, 0)
            if reason := _fault(node, given, version, large):
                name = node.name or next(filter(None, node.output), "")
                raise ModelError(f"operator {node.op_type}, node {name!r}, is not valid: {reason}")
            called = (node.domain, node.op_type, node.overload)
            if f := functions.get(called):
                inside = {a.name: a for a in f.attribute_proto} | given
                theirs = {name for name, outer in zip(f.input, node.input, strict=False) if outer in large}
                attributes = sorted((name, a.SerializeToString()) for name, a in inside.items())
                key = (*called, *attributes, *sorted(theirs))
                if key not in seen:
                    seen.add(key)
                    todo.append((f, f.opset_import, inside, theirs))
        if len(seen) > _MOST_CALLS:
            raise ModelError(f"functions are called in more than {_MOST_CALLS} ways: export the model flat")


def check_names(graph: GraphProto) -> None:
    """Refuse a graph that reads a tensor before it is made, or makes one twice.

    Raises
    ------
    ModelError
        The tensor is named.
    """
    for name in captured(graph):
        raise ModelError(
            f"tensor {name!r} is read before any node makes it: mend the name, or the nodes' order"
        )
    made = Counter(name for node in graph.node for name in node.output if name)
    made.update({value.name for value in graph.input})
    for name, times in made.items():
        if times > 1:
            raise ModelError(f"tensor {name!r} is made {times} times: give each a name of its own")


def elements(tensor: TensorProto) -> NDArray[Any]:
    """What an initializer holds, or a ModelError."""
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"initializer {tensor.name!r} of shape {tuple(tensor.dims)} does not hold its elements: {error}"
        ) from error


def _fault(node: NodeProto, given: Mapping[str, Any], version: int, large: set[str]) -> str | None:
    if not any(node.output):
        return "it has no output"
    least, most, single, kinds = _wanted(node.op_type, version, node.domain)
    if not least <= len(node.input) <= most or not all(node.input[k] for k in single if k < len(node.input)):
        return f"it takes at least {least} inputs and at most {most}, and has {list(node.input)}"
    for name, (kind, required) in kinds.items():
        a: Any = given.get(name)
        if required if a is None else a.type not in (kind, a.UNDEFINED):
            return f"its attribute {name!r} is missing, or of another type than at opset {version}"
        counted = name in _COUNTS and a is not None and not a.ref_attr_name
        if counted and not all(0 < k < _BEYOND for k in ([a.i] if kind == a.INT else a.ints)):
            return f"its attribute {name!r} is not from 1 to {_BEYOND - 1}"
    if node.op_type == "Slice" and len(node.input) > 4 and node.input[4] in large:
        return "its step is beyond 32 bits"
    if node.op_type == "Einsum" and "equation" in given and not given["equation"].ref_attr_name:
        equation = given["equation"].s.decode(errors="replace").replace(" ", "")
        left, _, right = equation.replace(".", "").partition("->")
        if not _EQUATION.fullmatch(equation) or len(set(right) & set(left)) < len(right):
            return (
                f"its equation {equation[:99]!r} is none: letters, one '...' a term, in the result known ones"
            )
    return None


@cache
def _wanted(
    op_type: str, version: int, domain: str
) -> tuple[int, int, list[int], dict[str, tuple[int, bool]]]:
    """Least and most inputs, those that must not be left out, and attributes: type, and if it is required."""
    if not defs.has(op_type, version, domain):
        return 0, _BEYOND, [], {}
    schema = defs.get_schema(op_type, version, domain)
    single = [k for k, port in enumerate(schema.inputs) if port.option == _SINGLE]
    kinds = {name: (int(a.type), a.required) for name, a in schema.attributes.items()}  # type: ignore[call-overload]
    return schema.min_input, schema.max_input, single, kinds


def _is_large(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.INT64 or list(tensor.dims) not in ([], [1]):
        return False
    return tensor.data_location != TensorProto.EXTERNAL and abs(int(elements(tensor).item())) >= _BEYOND
