from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from onnx import NodeProto, TensorProto

from mollikit_onnx.graphs.pruning import names_read
from mollikit_onnx.graphs.tensor import FLOATS
from mollikit_onnx.registry import find_rule, is_constant_by_law

# They make integers that stand for floats.
QUANTISERS = frozenset({"QuantizeLinear"})


def has_rule(node: NodeProto, opsets: Mapping[str, int]) -> bool:
    """Whether the operator of a node has a reverse-mode rule."""
    return find_rule(node.domain, node.op_type, opsets.get(node.domain, 1)) is not None


def active_path(
    nodes: Sequence[NodeProto],
    wrt: Collection[str],
    of: Collection[str],
    dtype: Callable[[str], int],
    opsets: Mapping[str, int],
) -> tuple[set[str], list[NodeProto]]:
    """Tensors that depend on ``wrt`` and determine ``of``, and the nodes between them.

    Parameters
    ----------
    nodes : sequence of NodeProto
        In topological order.
    wrt, of : collection of str
    dtype : callable
        Element type of a tensor, 0 where it is not known.
    opsets : mapping
        Version by domain.
    """
    # What is not known may be.
    real = FLOATS | {TensorProto.UNDEFINED}
    reached = set(wrt)
    for node in nodes:
        read = reached.intersection(names_read(node))
        if not read or is_constant_by_law(node.domain, node.op_type):
            continue
        # An unknown operator may compute anything from a float, integers that stand for it for instance;
        # what a quantiser makes are such integers, and so is what is made of them.
        coded = node.op_type in QUANTISERS or any(dtype(name) not in real for name in read)
        open_ended = coded or not has_rule(node, opsets)
        reached.update(name for name in node.output if name and (open_ended or dtype(name) in real))
    leading = set(of)
    path = []
    for node in reversed(nodes):
        if any(name in reached and name in leading for name in node.output):
            read = reached.intersection(names_read(node))
            if read:
                path.append(node)
                leading.update(read)
    path.reverse()
    return reached & leading, path
