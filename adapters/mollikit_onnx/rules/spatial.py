from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.origins import identity_matrix


@rule("SpaceToDepth")
def space_to_depth(node: Node, g: Tensor) -> Sent:
    """The inverse permutation."""
    return [g.op("DepthToSpace", blocksize=node.attribute("blocksize")).shaped(node.x.shape)]


@rule("DepthToSpace")
def depth_to_space(node: Node, g: Tensor) -> Sent:
    """The inverse permutation; SpaceToDepth puts the block before the channels, mode CRD behind them."""
    x, size = node.x, node.attribute("blocksize")
    back = g.op("SpaceToDepth", blocksize=size)
    if node.attribute("mode") == "CRD":
        count = x.dims(1, 2).op("Div", size * size)
        parted = back.reshaped(0, size * size, count, -1)
        back = parted.op("Transpose", perm=[0, 2, 1, 3]).reshaped_like(x)
    return [back.shaped(x.shape)]


@rule("CenterCropPad")
def center_crop_pad(node: Node, g: Tensor) -> Sent:
    """The same to the input's sizes: both put the smaller into the middle of the larger, rounded alike."""
    axes = node.attribute("axes") or list(range(node.x.rank))
    return [g.op("CenterCropPad", node.x.dims().op("Gather", axes), axes=axes).shaped(node.x.shape)]


@rule("Col2Im")
def col2im(node: Node, g: Tensor) -> Sent:
    """The adjoint cuts blocks out: a convolution whose k-th weight is 1 at the k-th place of the block."""
    x, image, block = node.inputs
    count = block.op("ReduceProd")
    places = identity_matrix(count, g.dtype).reshaped(count, 1, block)
    options = node.options("dilations", "pads", "strides")
    return [g.reshaped(-1, 1, image).op("Conv", places, **options).reshaped_like(x)]


@rule("AffineGrid")
def affine_grid(node: Node, g: Tensor) -> Sent:
    """Each point is theta times (its place, 1); the identity's grid holds the places."""
    theta, size = node.inputs
    rank = node.y.rank - 2
    wide = theta.dtype == TensorProto.DOUBLE
    # onnxruntime's function body of AffineGrid fails for float16 constants.
    identity = node.graph.constant(np.eye(rank, rank + 1, dtype=float if wide else np.float32)[None])
    one = node.graph.joined(1, size.op("Slice", [1], [rank + 2]))
    grid = identity.op("AffineGrid", one, align_corners=node.attribute("align_corners"))
    across = g.op("Reshape", [0, -1, rank]).op("Transpose", perm=[0, 2, 1])
    turned = across.op("MatMul", grid.op("Reshape", [-1, rank]).op("Cast", to=theta.dtype))
    return [turned.op("Concat", across.op("ReduceSum", [2], keepdims=1), axis=2).shaped(theta.shape)]
