from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.rules import Node, Tensor

# A number goes through a float operator in two parts, as float32 is exact up to 2^24 alone.
_PART = 4096


def identity_matrix(size: Tensor, dtype: int) -> Tensor:
    """The identity of a size that is an int64 vector of one number."""
    # EyeLike has neither bfloat16 nor, on onnxruntime, float16.
    made = dtype if dtype == TensorProto.DOUBLE else TensorProto.FLOAT
    ones = size.graph.scalar(1.0, made).op("Expand", size.op("Concat", size, axis=0))
    identity = ones.op("EyeLike")
    return identity if dtype == made else identity.op("Cast", to=dtype)


def numbered(x: Tensor) -> Tensor:
    """The elements' own numbers, 0, 1, ..., in the shape of x."""
    return x.op("Size").counted().op("Reshape", x.dims(), allowzero=1)


def added_up(g: Tensor, origin: Tensor, x: Tensor, *, spare: int = 0) -> Tensor:
    """Add g up, in the shape of x, where the numbers in origin say; some places more take what has none."""
    count = x.op("Size").op("Unsqueeze", [0])
    zeros = g.graph.scalar(0.0, g.dtype).op("Expand", count + spare if spare else count)
    places, parts = (t.op("Reshape", [-1]) for t in (origin, g))
    flat = zeros.op("ScatterElements", places, parts, axis=0, reduction="add")
    whole = flat.op("Slice", [0], [-spare]) if spare else flat
    return whole.op("Reshape", x.dims(), allowzero=1).shaped(x.shape)


def moved_back(node: Node, g: Tensor) -> Tensor:
    """Cotangent of the first input of an operator that only moves its elements about.

    The same operator moves the elements' own numbers; g is then added up where they say.
    """
    return added_up(g, node.again(numbered(node.x)), node.x)


def returned(node: Node, g: Tensor) -> Tensor:
    """Cotangent of the first input of a float operator that only moves elements, and fills up with zeros.

    The operator moves the elements' own numbers, from 1 on: what the runtime makes of its attributes holds.
    """
    x = node.x
    numbers = numbered(x)

    def moved(part: Tensor) -> Tensor:
        return node.again(part.op("Cast", to=x.dtype)).op("Cast", to=TensorProto.INT64)

    low, high = moved(numbers.op("Mod", _PART) + 1), moved(numbers.op("Div", _PART))
    # What no element was moved to adds up behind the last one, which is where -1 points.
    return added_up(g, high * _PART + low - 1, x, spare=1)
