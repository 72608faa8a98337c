from __future__ import annotations

import math

from onnx import TensorProto

from mollikit_onnx.graphs.tensor import Dimension, Tensor
from mollikit_onnx.rules import Node, Sent, rule
from mollikit_onnx.rules.origins import identity_matrix, returned


@rule("Resize", since=11)
def resize(node: Node, g: Tensor) -> Sent:
    """Linear in x, and one axis after the other: for each a matrix, which resizing the identity gives."""
    return [_of_x(node, g), *(_of_place(node, k) for k in range(1, len(node.inputs)))]


def _of_place(node: Node, index: int) -> Tensor | None:
    """Where the nearest element is taken, its place decides on which one alone."""
    given: Tensor | None = node.inputs[index]
    if given is None or not node.wanted[index]:
        return None
    if node.attribute("mode") != "nearest":
        node.refuse("the gradient with respect to the region or the scales is not covered")
    return node.graph.scalar(0.0, given.dtype).expanded_like(given)


def _of_x(node: Node, g: Tensor) -> Tensor:
    x = node.x
    if node.attribute("keep_aspect_ratio_policy") not in (None, "stretch"):
        if node.attribute("mode") != "nearest" or node.attribute("extrapolation_value"):
            node.refuse(
                "keep_aspect_ratio_policy is covered for mode nearest alone; give the sizes it leads to"
            )
        return returned(node, g)
    places = {axis: place for place, axis in enumerate(_axes(node)) if not _unchanged(node, place, axis)}
    if not places:
        return g
    block = [_repeats(node, places[axis], axis) if axis in places else 1 for axis in range(x.rank)]
    # AveragePool has bfloat16 from opset 22 on alone.
    if x.rank > 2 and block[:2] == [1, 1] and all(block) and x.dtype != TensorProto.BFLOAT16:
        kernel = block[2:]
        sums = g.op("AveragePool", kernel_shape=kernel, strides=kernel) * float(math.prod(kernel))
        return sums.shaped(x.shape)
    for axis in sorted(places, reverse=True):
        g = _pulled_back(node, g, _matrix(node, places[axis], axis), axis)
    return g.shaped(x.shape)


def _axes(node: Node) -> list[int]:
    axes = node.attribute("axes")
    return list(range(node.x.rank)) if axes is None else [axis % node.x.rank for axis in axes]


def _unchanged(node: Node, place: int, axis: int) -> bool:
    """Whether an axis is known to stay as it is."""
    _, roi, scales, _ = _operands(node)
    if node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        if roi is None or roi.value is None:
            return False
        half = roi.value.size // 2
        if roi.value[place] != 0 or roi.value[half + place] != 1:
            return False
    if scales is not None:
        return scales.value is not None and bool(scales.value[place] == 1)
    before, after = _size(node.x, axis), _size(node.y, axis)
    return before is not None and before == after


def _size(x: Tensor, axis: int) -> Dimension:
    return None if x.shape is None else x.shape[axis]


def _operands(node: Node) -> tuple[Tensor | None, ...]:
    """X, roi, scales and sizes; an empty tensor is as good as none."""
    operands = [node.input(k) for k in range(4)]
    return tuple(None if x is None or x.shape == (0,) else x for x in operands)


def _repeats(node: Node, place: int, axis: int) -> int:
    """How often the axis repeats each element; 0 if it does otherwise, or it is not known."""
    exact = {
        "asymmetric": ("floor",),
        "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
        "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    }
    coordinates, rounding = (
        node.attribute(name) for name in ("coordinate_transformation_mode", "nearest_mode")
    )
    if node.attribute("mode") != "nearest" or rounding not in exact.get(coordinates, ()):
        return 0
    scales = _operands(node)[2]
    if scales is not None:
        factor = float(scales.value[place]) if scales.value is not None else 0.0
    else:
        before, after = _size(node.x, axis), _size(node.y, axis)
        factor = after / before if isinstance(before, int) and isinstance(after, int) else 0.0
    return int(factor) if factor >= 1 and factor == int(factor) else 0


def _copied(node: Node) -> bool | Tensor:
    """Whether the shape stays, and onnxruntime copies x whatever the scales and the region say."""
    _, _, scales, sizes = _operands(node)
    if node.x.sizes is not None and node.y.sizes is not None:
        return node.x.sizes == node.y.sizes
    if sizes is not None and node.attribute("coordinate_transformation_mode") != "tf_crop_and_resize":
        # Equal sizes are a scale of 1: the matrix is the identity.
        return False
    if scales is not None and scales.value is not None and ((scales.value < 1) | (scales.value >= 2)).any():
        return False
    equal = node.x.dims().op("Equal", node.y.dims()).op("Cast", to=TensorProto.INT64)
    return equal.op("ReduceMin", keepdims=0).op("Cast", to=TensorProto.BOOL)


def _matrix(node: Node, place: int, axis: int) -> Tensor:
    """Matrix of one axis, transposed: (size of x, size of y)."""
    copied = _copied(node)
    if isinstance(copied, bool):
        return _resized_identity(node, place, axis, copied=copied)
    kept, changed = (_resized_identity(node, place, axis, copied=flag) for flag in (True, False))
    return kept.where(copied, changed)


def _resized_identity(node: Node, place: int, axis: int, *, copied: bool) -> Tensor:
    """Resize the identity's rows as the axis is resized.

    They are the channels of a picture of one column. That is doubled, so that the shape changes even where
    the size of the axis does not, unless the model's own shape does not change either.
    """
    _, roi, scales, sizes = _operands(node)
    size, width = node.x.dims(axis, axis + 1), 1 if copied else 2
    names = ("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode")
    options = node.options(*names, "nearest_mode")
    region = factors = lengths = None
    joined = node.graph.joined
    if roi is not None:
        first, last = (roi.op("Gather", [k]) for k in (place, place + len(_axes(node))))
        region = joined(roi.like([0, 0]), first, roi.like([0, 1, 1]), last, roi.like([1]))
    if scales is not None:
        factors = joined(scales.like([1, 1]), scales.op("Gather", [place]), scales.like([width]))
    if sizes is not None:
        lengths = joined(1, size, sizes.op("Gather", [place]), width)
    picture = identity_matrix(size, node.x.dtype).op("Unsqueeze", [0, 3])
    resized = picture.op("Resize", region, factors, lengths, **options)
    return resized.op("Gather", node.graph.scalar(0, TensorProto.INT64), axis=3).op("Squeeze", [0])


def _pulled_back(node: Node, g: Tensor, across: Tensor, axis: int) -> Tensor:
    """Multiply one axis by its matrix; the axes behind it have the sizes of x already."""
    behind = node.x.rank - 1 - axis
    if not behind:
        return g.op("MatMul", across.op("Transpose", perm=[1, 0]))
    if behind == 1:
        return across.op("MatMul", g)
    kept = [0] * axis
    flat = across.op("MatMul", g.op("Reshape", [*kept, 0, -1]))
    return flat.reshaped(*kept, -1, node.x.dims(axis + 1))
