from __future__ import annotations

from collections import Counter
from string import ascii_letters

from mollikit_onnx.graphs.tensor import Dimension, Tensor
from mollikit_onnx.rules import Node, Sent, rule


@rule("Einsum")
def einsum(node: Node, g: Tensor) -> Sent:
    """Each operand has the product of g and the other operands, summed over the letters it does not have."""
    terms, result = _spelled_out(node)
    # onnx takes the size of an ellipsis from the first operand alone.
    whole = _sizes(list(zip(terms, node.inputs, strict=True)))
    g = g.shaped(tuple(whole[c] for c in result))
    sent: Sent = [None] * len(terms)
    for k, (x, term) in enumerate(zip(node.inputs, terms, strict=True)):
        if node.wanted[k]:
            others = [(result, g)]
            others += [(t, y) for j, (t, y) in enumerate(zip(terms, node.inputs, strict=True)) if j != k]
            sent[k] = _adjoint(node, term, x, others)
    return sent


def _spelled_out(node: Node) -> tuple[list[str], str]:
    """Terms of the operands and of the result, with a letter for each axis of an ellipsis."""
    left, arrow, right = node.attribute("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs):
        node.refuse(f"its equation has {len(terms)} operands and the node {len(node.inputs)}")
    if not arrow:
        seen = Counter(left.replace(",", "").replace("...", ""))
        right = "..." * ("..." in left) + "".join(sorted(c for c in seen if seen[c] == 1))
    free = [c for c in ascii_letters if c not in left]
    longest = 0
    for k, (term, x) in enumerate(zip(terms, node.inputs, strict=True)):
        hidden = x.rank - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term):
            node.refuse(f"its term {term!r} does not fit an operand of rank {x.rank}")
        longest = max(longest, hidden)
        if longest > len(free):
            node.refuse("it has more axes than there are letters")
        # Axes of ellipses are counted from the last.
        terms[k] = term.replace("...", "".join(reversed(free[:hidden])))
    right = right.replace("...", "".join(reversed(free[:longest])))
    return terms, right


def _adjoint(node: Node, term: str, x: Tensor, others: list[tuple[str, Tensor]]) -> Tensor:
    letters = "".join(dict.fromkeys(term))
    known = "".join(c for c in letters if any(c in t for t, _ in others))
    # Scalars are factors, which onnxruntime's Einsum need not see.
    scalars = [y for t, y in others if not t]
    factors = [(t, y) for t, y in others if t]
    product: Tensor | None = None
    if factors:
        equation = ",".join(t for t, _ in factors) + "->" + known
        product = node.graph.op("Einsum", *(y for _, y in factors), equation=equation)
    for scalar in scalars:
        product = scalar if product is None else product * scalar
    assert product is not None
    # Letters that x alone has were summed over; those that it has twice were read on the diagonal.
    added = [k for k, c in enumerate(term) if c not in known or term.index(c) < k]
    if added:
        product = product.op("Unsqueeze", added)
    sizes = _sizes(others)
    product = product.shaped(tuple(1 if k in added else sizes[c] for k, c in enumerate(term)))
    product = _spread(product, x)
    for k in range(x.rank):
        if term.index(term[k]) < k:
            product = product.where(_diagonal(node, x, term.index(term[k]), k)).shaped(product.shape)
    return product.summed_to(x)


def _sizes(others: list[tuple[str, Tensor]]) -> dict[str, Dimension]:
    """Size of each letter in a product; an axis of size 1 may stand for any other size of its letter."""
    given: dict[str, set[Dimension]] = {}
    for t, y in others:
        for c, size in zip(t, y.shape or [None] * len(t), strict=True):
            given.setdefault(c, set()).add(size)
    sizes: dict[str, Dimension] = {}
    for c, found in given.items():
        larger = found - {1}
        fixed = [size for size in larger if isinstance(size, int)]
        # A symbol beside a number is that number or 1; one beside another symbol may be either.
        sizes[c] = fixed[0] if fixed else (larger or {1}).pop() if len(larger) < 2 else None
    return sizes


def _spread(product: Tensor, x: Tensor) -> Tensor:
    """Repeat a product along the axes where x has more than it."""
    pairs = list(zip(product.shape or (), x.shape or (), strict=True))
    if all(size == 1 or (own == size and size is not None) for own, size in pairs):
        return product
    return product.op("Expand", x.dims()).shaped(tuple(size if own == 1 else own for own, size in pairs))


def _diagonal(node: Node, x: Tensor, first: int, second: int) -> Tensor:
    """Where the places along two axes are equal, against the shape of x."""
    first_places, second_places = (
        x.dims(axis, axis + 1).counted().op("Unsqueeze", [k for k in range(x.rank) if k != axis])
        for axis in (first, second)
    )
    return first_places.op("Equal", second_places)
