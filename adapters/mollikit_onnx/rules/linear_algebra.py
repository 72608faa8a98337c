from __future__ import annotations

from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("MatMul")
def matmul(node: Node, g: Tensor) -> Sent:
    """Da = g b^T, db = a^T g, summed over the batch axes that were broadcast."""
    a, b = node.inputs
    # A vector is a matrix of one row (left) or one column (right).
    row, column = a.rank == 1, b.rank == 1
    left = a.op("Unsqueeze", [0]) if row else a
    right = b.op("Unsqueeze", [1]) if column else b
    if row:
        g = g.op("Unsqueeze", [-1 if column else -2])
    if column:
        g = g.op("Unsqueeze", [-1])
    sent: Sent = [None, None]
    if node.wanted[0]:
        from_left = g.op("MatMul", _transposed(right)).summed_to(left)
        sent[0] = from_left.op("Squeeze", [0]) if row else from_left
    if node.wanted[1] and right.rank == 2 < left.rank:
        # One product of long matrices in place of a sum of many short ones.
        from_right = long(left).op("Gemm", long(g), transA=1)
        sent[1] = from_right.op("Squeeze", [1]) if column else from_right
    elif node.wanted[1]:
        from_right = _transposed(left).op("MatMul", g).summed_to(right)
        sent[1] = from_right.op("Squeeze", [1]) if column else from_right
    return sent


def long(matrices: Tensor) -> Tensor:
    """All matrices of a stack, one below the other."""
    return matrices.reshaped(-1, matrices.dims(-1))


def _transposed(matrix: Tensor) -> Tensor:
    axes = list(range(matrix.rank))
    return matrix.op("Transpose", perm=[*axes[:-2], axes[-1], axes[-2]])


@rule("Gemm", since=11)
def gemm(node: Node, g: Tensor) -> Sent:
    """Y = alpha a' b' + beta c, where ' transposes or does not."""
    a, b = node.inputs[:2]
    alpha, beta = node.attribute("alpha"), node.attribute("beta")
    ta, tb = node.attribute("transA"), node.attribute("transB")
    sent: Sent = [None] * len(node.inputs)
    if node.wanted[0]:
        # da' = alpha g b'^T, and its transpose is b' (alpha g)^T.
        sent[0] = (
            b.op("Gemm", g, alpha=alpha, transA=tb, transB=1)
            if ta
            else g.op("Gemm", b, alpha=alpha, transB=1 - tb)
        )
    if node.wanted[1]:
        sent[1] = (
            g.op("Gemm", a, alpha=alpha, transA=1, transB=ta)
            if tb
            else a.op("Gemm", g, alpha=alpha, transA=1 - ta)
        )
    if len(node.inputs) > 2 and node.wanted[2]:
        sent[2] = (g * beta).shaped(node.y.shape).summed_to(node.inputs[2])
    return sent


@rule("Det")
def det(node: Node, g: Tensor) -> Sent:
    """The cofactors: signed determinants of what is left without a row and a column, singular or not."""
    x = node.x
    numbers = x.dims(x.rank - 1).counted()
    # Row i lists all numbers but i.
    column = numbers.op("Unsqueeze", [1])
    shorter = (x.dims(x.rank - 1) - 1).counted()
    others = shorter + shorter.op("GreaterOrEqual", column).op("Cast", to=TensorProto.INT64)
    # (..., i, rows, columns), then (..., i, rows, j, columns).
    minors = x.op("Gather", others, axis=x.rank - 2).op("Gather", others, axis=x.rank)
    batch = list(range(x.rank - 2))
    i, rows, j, columns = range(x.rank - 2, x.rank + 2)
    cofactors = minors.op("Transpose", perm=[*batch, i, j, rows, columns]).op("Det")
    parity = (column + numbers).op("Mod", 2).op("Cast", to=x.dtype)
    g = g.op("Unsqueeze", [-2, -1]) if x.rank > 2 else g
    return [cofactors * (1 - 2 * parity) * g]
