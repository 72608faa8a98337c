"""Attention of onnxruntime's own domain, written out.

Source: onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Node, Tensor
from mollikit_onnx.rules.fused import Made, fused, plus


def _known(node: Node, x: Tensor, axis: int, what: str) -> int:
    """Size of an axis that must be known."""
    size = x.shape[axis] if x.shape is not None else None
    if not isinstance(size, int):
        node.refuse(f"{what} is not known")
    return size


@fused("RotaryEmbedding")
def rotary_embedding(node: Node) -> Made:
    """Rotate pairs of elements by angles that grow with the position."""
    x, positions, cosines, sines = node.inputs
    if node.attribute("is_packed_batching", 0):
        node.refuse("packed batches are not covered")
    heads = node.attribute("num_heads", 0)
    turned = node.attribute("rotary_embedding_dim", 0)
    width = _known(node, cosines, 1, "the width of its table of cosines")
    size = (x.shape[-1] if x.rank == 4 else None) if turned else 2 * width
    if not isinstance(size, int) and x.rank == 3 and heads and isinstance(x.shape[2], int):
        size = x.shape[2] // heads
    if not isinstance(size, int):
        node.refuse("the size of its heads is not known")
    # (batch, heads, sequence, size) from here on; a table row for each position.
    flat = x.rank == 3
    wide = x.op("Reshape", [0, 0, -1, size]).op("Transpose", perm=[0, 2, 1, 3]) if flat else x
    if positions.rank == 1 or positions.shape == (1,):
        rows = (wide.dims(2, 3).counted() + positions).op("Unsqueeze", [0])
    else:
        rows = positions
    cos, sin = (table.op("Gather", rows).op("Unsqueeze", [1]) for table in (cosines, sines))
    pieces = (
        wide.graph.ops(2, "Split", wide, [2 * width, size - 2 * width], axis=3)
        if size > 2 * width
        else [wide]
    )
    head = pieces[0]
    if node.attribute("interleaved", 0):
        even, odd = (head.op("Slice", [k], [2 * width], [3], [2]) for k in (0, 1))
        ahead, behind = even * cos - odd * sin, even * sin + odd * cos
        joined = ahead.op("Unsqueeze", [4]).op("Concat", behind.op("Unsqueeze", [4]), axis=4)
        rotated = joined.op("Reshape", [0, 0, 0, -1])
    else:
        first, second = head.graph.ops(2, "Split", head, [width, width], axis=3)
        rotated = (first * cos - second * sin).op("Concat", first * sin + second * cos, axis=3)
    whole = rotated.op("Concat", pieces[1], axis=3) if len(pieces) > 1 else rotated
    if flat:
        whole = whole.op("Transpose", perm=[0, 2, 1, 3]).op("Reshape", [0, 0, -1])
    return [whole.shaped(x.shape)]


def _apart(x: Tensor, count: int) -> Tensor:
    """(batch, sequence, count * size) as (batch, count, sequence, size)."""
    return x.op("Reshape", [0, 0, count, -1]).op("Transpose", perm=[0, 2, 1, 3])


def _attended(node: Node, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(scale q k' + mask) v of (batch, heads, sequence, size) as (batch, sequence, -1)."""
    scale = node.attribute("scale", 0.0)
    if not scale:
        scale = 1 / math.sqrt(_known(node, query, -1, "the size of its heads"))
    scores = query.op("MatMul", key.op("Transpose", perm=[0, 1, 3, 2])) * scale
    if node.attribute("unidirectional", 0):
        rows, columns = scores.dims(2, 3), scores.dims(3, 4)
        ones = node.graph.scalar(1.0, scores.dtype).op("Expand", node.graph.joined(rows, columns))
        below = ones.op("Trilu", (columns - rows).op("Squeeze", [0]), upper=0)
        scores = scores.where(
            below.op("Cast", to=TensorProto.BOOL), node.attribute("mask_filter_value", -10000.0)
        )
    scores = plus(scores, mask)
    joined = scores.op("Softmax", axis=-1).op("MatMul", value).op("Transpose", perm=[0, 2, 1, 3])
    return joined.op("Reshape", [0, 0, -1])


def _mask(node: Node, keys: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """What is added to the scores: a bias, and the filter value where a key is padding and does not count."""
    if keys is None:
        return bias
    if keys.rank != 2:
        node.refuse(f"a mask of {keys.rank} axes is not covered; of (batch, keys) it would be")
    gone = keys.op("Equal", node.graph.constant(np.array(0, np.int32)))
    filtered = node.x.like(node.attribute("mask_filter_value", -10000.0))
    return plus(gone.op("Where", filtered, node.x.like(0.0)).op("Unsqueeze", [1, 2]), bias)


@fused("Attention")
def attention(node: Node) -> Made:
    """Self-attention whose query, key and value are one product of the input (batch, sequence, hidden)."""
    if any(node.input(k) is not None for k in (4, 6)) or node.attribute("do_rotary", 0):
        node.refuse("a past, or rotary positions inside, is not covered")
    heads = node.attribute("num_heads")
    projected = plus(node.x.op("MatMul", node.inputs[1]), node.input(2))
    sizes = node.attribute("qkv_hidden_sizes")
    if sizes is None:
        sizes = [_known(node, projected, -1, "the width of its weights") // 3] * 3
    parts = node.graph.ops(3, "Split", projected, sizes, axis=2)
    query, key, value = (_apart(part, heads) for part in parts)
    mask = _mask(node, node.input(3), node.input(5))
    return [_attended(node, query, key, value, mask).shaped(node.y.shape)]


@fused("MultiHeadAttention")
def multi_head_attention(node: Node) -> Made:
    """Attention of a query, a key and a value, each (batch, sequence, hidden)."""
    if any(node.input(k) is not None for k in range(6, len(node.inputs))):
        node.refuse("a past is not covered")
    query, key, value = (node.input(k) for k in range(3))
    if query is None or key is None or value is None or {query.rank, key.rank, value.rank} != {3}:
        node.refuse("packed queries, keys and values are not covered")
    bias = node.input(3)
    if bias is not None:
        sizes = [_known(node, x, 2, "the width of its inputs") for x in (query, key, value)]
        parts = node.graph.ops(3, "Split", bias, sizes, axis=0)
        query, key, value = (x + part for x, part in zip((query, key, value), parts, strict=True))
    heads = node.attribute("num_heads")
    query, key, value = (_apart(x, heads) for x in (query, key, value))
    return [_attended(node, query, key, value, _mask(node, node.input(4), node.input(5)))]
