from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, defs, inliner

from mollikit_onnx.errors import ModelError, OpsetError
from mollikit_onnx.graphs.pruning import subgraphs
from mollikit_onnx.normal_form.folding import with_types
from mollikit_onnx.registry import registered

# What a model may ask for: functions within functions, and nodes when all calls are written out.
DEEPEST_CALL = 64
MOST_NODES = 1_000_000
# Domain of the calls that stand for expanded nodes until the inliner takes them.
_BODIES = "mollikit.bodies"

_Key = tuple[str, str, str]
Types = Mapping[str, TypeProto]


def inlined(model: ModelProto) -> ModelProto:
    """Replace calls of the model's own functions by their bodies, but for those that have a rule.

    Raises
    ------
    ModelError
        If functions call themselves, or one another more than `DEEPEST_CALL` deep, or there would be more
        than `MOST_NODES` nodes.
    """
    if not model.functions:
        return model
    _check_size(model)
    ruled = set(registered())
    kept = [f for f in model.functions if (f.domain, f.name) in ruled]
    return _inlined_but(model, kept)


def expanded(model: ModelProto, types: Types, chosen: Callable[[NodeProto], bool]) -> ModelProto | None:
    """Replace the chosen nodes, in subgraphs too, by the function bodies that define their operators.

    Parameters
    ----------
    model : ModelProto
        Changed.
    types : mapping
        Of the tensors of the main graph; some bodies depend on them.
    chosen : callable
        Whether a node is to be replaced; one without a body stays.

    Returns
    -------
    ModelProto or None
        None where nothing was replaced.
    """
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    kept, imports = list(model.functions), list(model.opset_import)
    bodies: list[FunctionProto] = []
    for node, known in _nodes(model.graph, types):
        body = _body(node, opsets, known) if chosen(node) else None
        if body is None:
            continue
        origin = node.name or next(name for name in node.output if name)
        for inner in body.node:
            inner.name = f"{origin}/{inner.name or inner.op_type}"
        body.domain, body.name, body.overload = _BODIES, f"{node.op_type}.{len(bodies)}", ""
        node.domain, node.op_type, node.overload = body.domain, body.name, ""
        bodies.append(body)
    if not bodies:
        return None
    model.functions.extend(bodies)
    model.opset_import.add(domain=_BODIES, version=1)
    result = _inlined_but(model, kept)
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result


def _inlined_but(model: ModelProto, kept: list[FunctionProto]) -> ModelProto:
    """Inline all functions but some, those that were written for other operator sets converted."""
    names = {(f.domain, f.name, f.overload) for f in kept}
    others = [f for f in model.functions if (f.domain, f.name, f.overload) not in names]
    shell = ModelProto()
    shell.CopyFrom(model)
    del shell.functions[:]
    shell.functions.extend(others)
    convert = [f.name for f in shell.functions if not _restamped(f, model)]
    if convert:
        # The conversion needs types.
        shell = with_types(shell)
    try:
        result = inliner.inline_local_functions(shell, convert_version=bool(convert))
    except RuntimeError as error:
        raise OpsetError(
            f"the functions {convert} are written for another operator set than the model, and onnx cannot "
            f"convert them: {error}. Export the model with one operator set"
        ) from error
    result.functions.extend(kept)
    return result


def _restamped(function: FunctionProto, model: ModelProto) -> bool:
    """Write the model's operator sets into a function if its operators are alike in them."""
    theirs = {opset.domain: opset.version for opset in function.opset_import}
    ours = {opset.domain: opset.version for opset in model.opset_import}
    if not alike(function, theirs, ours):
        return False
    for opset in function.opset_import:
        opset.version = ours.get(opset.domain, opset.version)
    return True


def alike(graph: GraphProto | FunctionProto, one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether two versions of the operator sets mean the same by every node of a graph."""
    return all(
        _form(node, one) == _form(node, other) and all(alike(inner, one, other) for inner in subgraphs(node))
        for node in graph.node
    )


def _form(node: NodeProto, opsets: Mapping[str, int]) -> object:
    """Tell what an operator takes and gives at a version; types aside, which only ever grew in number."""
    version = opsets.get(node.domain, 0)
    if not defs.has(node.op_type, version, node.domain):
        return None
    schema = defs.get_schema(node.op_type, version, node.domain)
    ports = [(port.name, port.option) for port in (*schema.inputs, *schema.outputs)]
    return ports, {name: a.default_value.SerializeToString() for name, a in schema.attributes.items()}


def _nodes(graph: GraphProto, types: Types) -> Iterator[tuple[NodeProto, Types]]:
    """Nodes of a graph and of the graphs inside it, with the types of what each may read."""
    for node in graph.node:
        yield node, types
        for inner in subgraphs(node):
            own = {v.name: v.type for v in (*inner.input, *inner.value_info, *inner.output)}
            yield from _nodes(inner, {**types, **own})


def _body(node: NodeProto, opsets: Mapping[str, int], types: Types) -> FunctionProto | None:
    """Return the function body by which onnx defines the operator of a node."""
    version = opsets.get(node.domain, 1)
    if not defs.has(node.op_type, version, node.domain):
        return None
    # onnx's own stubs know nothing of what it tells of function bodies.
    schema: Any = defs.get_schema(node.op_type, version, node.domain)
    limit = opsets[""]
    if schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= limit]
        if not versions or any(name and name not in types for name in node.input):
            return None
        kinds = [types[name].SerializeToString() if name else b"" for name in node.input]
        content = schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), kinds
        )
    elif versions := [v for v in schema.function_opset_versions if v <= limit]:
        content = schema.get_function_with_opset_version(max(versions))
        given = {attribute.name for attribute in node.attribute}
        defaults = {name: a.default_value for name, a in schema.attributes.items() if name not in given}
        node.attribute.extend(d for d in defaults.values() if d.type != AttributeProto.UNDEFINED)
    else:
        return None
    return FunctionProto.FromString(content) if content else None


def _check_size(model: ModelProto) -> None:
    """Count what inlining would write out, before it does: functions of functions grow by powers."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    counted: dict[_Key, tuple[int, int]] = {}

    def count(nodes: Iterable[NodeProto], calls: tuple[_Key, ...]) -> tuple[int, int]:
        total = depth = 0
        for node in nodes:
            total += 1
            parts = [count(inner.node, calls) for inner in subgraphs(node)]
            key = (node.domain, node.op_type, node.overload)
            if key in calls:
                raise ModelError(f"the model's function {key[1]!r} (domain {key[0]!r}) calls itself")
            if key in functions:
                if key not in counted and len(calls) < DEEPEST_CALL:
                    size, below = count(functions[key].node, (*calls, key))
                    counted[key] = size, below + 1
                parts.append(counted.get(key, (0, DEEPEST_CALL + 1)))
            total += sum(size for size, _ in parts)
            depth = max([depth, *(below for _, below in parts)])
        if depth > DEEPEST_CALL:
            raise ModelError(
                f"the model's functions call one another more than {DEEPEST_CALL} deep: export it without"
            )
        if total > MOST_NODES:
            raise ModelError(
                f"the model has more than {MOST_NODES} nodes when its functions are written out: "
                "take a part of it"
            )
        return total, depth

    count(model.graph.node, ())
