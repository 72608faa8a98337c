from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from onnx import NodeProto, helper

Sizes = Callable[[str], tuple[int, ...] | None]


def multiplications(nodes: Sequence[NodeProto], sizes: Sizes) -> int:
    """Count the multiplications of one row in convolutions and matrix products of known sizes."""
    return sum(_of(node, sizes) for node in nodes)


def _of(node: NodeProto, sizes: Sizes) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain:
        return 0
    x, other, y = (sizes(name) for name in (node.input[0], node.input[1], node.output[0]))
    if not x or not other or not y:
        return 0
    match node.op_type:
        case "Conv":
            return prod(y) * prod(other[1:])
        case "ConvTranspose":
            return prod(x) * prod(other[1:])
        case "Gemm":
            turned = any(a.name == "transA" and helper.get_attribute_value(a) for a in node.attribute)
            return prod(y) * x[0 if turned else -1]
        case _:
            return prod(y) * x[-1]
