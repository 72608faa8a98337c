from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product
from operator import add

from onnx import TensorProto

from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.graphs.windows import Windows
from mollikit_onnx.mean_gates.averages import Averages

# (node as the model has it, node of the linear model, what of it is averaged) -> its linear output.
StandIn = Callable[[Node, Node, Averages], Tensor]

_STAND_INS: dict[str, StandIn] = {}


def stand_in(*op_types: str) -> Callable[[StandIn], StandIn]:
    """Register the linear map that stands for nonlinear operators, with averages for coefficients."""

    def register(function: StandIn) -> StandIn:
        _STAND_INS.update(dict.fromkeys(op_types, function))
        return function

    return register


def find_stand_in(node: Node) -> StandIn | None:
    """Return the stand-in of a node, or None where its operator has none or is linear in what varies."""
    if node.proto.domain or not any(node.wanted):
        return None
    if node.proto.op_type in _OF_PAIRS and sum(node.wanted[:2]) < 2:
        # A product with a constant is linear; a quotient by something that varies is not.
        divided = node.proto.op_type == "Div" and node.wanted[1]
        return _STAND_INS["Div"] if divided else None
    return _STAND_INS.get(node.proto.op_type)


_OF_PAIRS = frozenset({"Mul", "MatMul", "Gemm", "Conv", "ConvTranspose", "Div"})


@stand_in("Mul", "MatMul", "Gemm", "Conv", "ConvTranspose")
def of_product(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """A b is E[a] b + a E[b], less a constant: exact for a and b jointly Gaussian."""
    parts = []
    for varied in (0, 1):
        inputs = list(linear.inputs)
        inputs[1 - varied] = averages.of(seen.inputs[1 - varied])
        if varied:
            del inputs[2:]  # what is added enters once
        attributes = {a.name: linear.attribute(a.name) for a in linear.proto.attribute}
        parts.append(linear.graph.op(linear.proto.op_type, *inputs, **attributes))
    return _sum(parts)


@stand_in("Div")
def of_quotient(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """A / b is E[1 / b] a - E[a / b^2] b, less a constant."""
    a, b = linear.inputs
    over = 1 / seen.inputs[1]
    against: Tensor = b * averages.of(seen.y * over)
    return a * averages.of(over) - against if seen.wanted[0] else -against


@stand_in("Max", "Min")
def of_extremum(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """Each operand as often as it is the one; equal ones share."""
    masks = [x.op("Equal", seen.y).op("Cast", to=seen.y.dtype) for x in seen.inputs]
    count = _sum(masks)
    parts = zip(linear.inputs, masks, linear.wanted, strict=True)
    return _sum([x * averages.of(mask / count) for x, mask, wanted in parts if wanted])


@stand_in("Softmax")
def of_softmax(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """Its derivative at the mean probabilities p: p (x - sum p x)."""
    p, x = averages.of(seen.y), linear.x
    mean: Tensor = (p * x).op("ReduceSum", [linear.attribute("axis")], keepdims=1)
    return p * (x - mean)


@stand_in("ReduceMax", "ReduceMin")
def of_reduced_extremum(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """Each element as often as it is the one; equal ones share."""
    axes = linear.input(1)
    kept = seen.y
    if not linear.attribute("keepdims"):
        kept = seen.graph.op(seen.proto.op_type, seen.x, axes, keepdims=1)
    gate = averages.of(_shares(seen.x.op("Equal", kept).op("Cast", to=seen.x.dtype), axes))
    keepdims: int = linear.attribute("keepdims")
    return (linear.x * gate).op("ReduceSum", axes, keepdims=keepdims)


@stand_in("GlobalMaxPool")
def of_global_max_pool(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """Each element as often as it is the largest of its channel; equal ones share."""
    axes = seen.graph.operand(list(range(2, seen.x.rank)), TensorProto.INT64)
    gate = averages.of(_shares(seen.x.op("Equal", seen.y).op("Cast", to=seen.x.dtype), axes))
    return (linear.x * gate).op("ReduceSum", list(range(2, linear.x.rank)), keepdims=1)


def _sum(parts: list[Tensor]) -> Tensor:
    return reduce(add, parts)


def _shares(chosen: Tensor, axes: Tensor | None) -> Tensor:
    return chosen / chosen.op("ReduceSum", axes, keepdims=1)


@stand_in("MaxPool")
def of_max_pool(seen: Node, linear: Node, averages: Averages) -> Tensor:
    """Each element of a window as often as it is its largest; equal ones share."""
    if linear.x.sizes is None or linear.y.sizes is None:
        linear.refuse("mean gates need the sizes of its input")
    if len(linear.proto.output) > 1:
        linear.refuse("mean gates do not cover its second output, the indices")
    windows = Windows.of(linear)
    # Padding is never the largest.
    padded = _parts(seen.x, float("-inf"), windows, linear)
    masks = [part.op("Equal", seen.y).op("Cast", to=seen.y.dtype) for part in padded]
    count = _sum(masks)
    parts = zip(_parts(linear.x, 0.0, windows, linear), masks, strict=True)
    return _sum([part * averages.of(mask / count) for part, mask in parts])


def _parts(x: Tensor, filler: float, windows: Windows, pool: Node) -> list[Tensor]:
    """The element at each place of a window, for all windows: arrays of the pool's shape."""
    assert pool.x.sizes is not None
    assert pool.y.sizes is not None
    out, size = pool.y.sizes[2:], pool.x.sizes[2:]
    last = [(m - 1) * s + r for m, s, r in zip(out, windows.strides, windows.reach, strict=True)]
    beyond = [max(n - b - k, 0) for n, b, k in zip(last, windows.begin, size, strict=True)]
    if any(windows.begin) or any(beyond):
        pads = [0, 0, *windows.begin, 0, 0, *beyond]
        x = x.op("Pad", pads, x.graph.scalar(filler, x.dtype))
    axes = list(range(2, 2 + len(size)))
    strides = list(windows.strides)
    parts = []
    for place in product(*map(range, windows.kernel)):
        start = [k * d for k, d in zip(place, windows.dilations, strict=True)]
        stop = [a + (m - 1) * s + 1 for a, m, s in zip(start, out, strides, strict=True)]
        parts.append(x.op("Slice", start, stop, axes, strides))
    return parts
