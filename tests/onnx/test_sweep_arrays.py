"""Sweeps over the attributes of what pads, reads, writes, reduces and multiplies arrays.

Inputs are normal random numbers, so ties and zeros, where max, min, abs and norms have kinks, do not come up.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.onnx.gradient_checks import check_case
from tests.onnx.rule_cases import Case, case

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def pads(draw: st.DrawFn) -> Case:
    shape = draw(sizes)
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "edge", "wrap"]))
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(1, len(shape)))]
    amounts = np.zeros((2, len(axes)), np.int64)
    for k, axis in enumerate(axes):
        most = shape[axis] - (mode == "reflect") if mode in ("reflect", "wrap") else 3
        # Negative amounts crop; one element is left.
        least = -((shape[axis] - 1) // 2) if mode == "constant" else 0
        amounts[:, k] = [draw(st.integers(least, most)) for _ in range(2)]
    value = () if mode == "constant" and draw(st.booleans()) else None
    return case("Pad", shape, amounts.ravel(), value, np.array(axes, np.int64), mode=mode)


@st.composite
def places(draw: st.DrawFn, shape: tuple[int, ...], axis: int, *, distinct: bool) -> np.ndarray:
    """Indices along an axis for a part of the others."""
    part = [draw(st.integers(1, n)) for n in shape]
    size = shape[axis]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if not distinct:
        part[axis] = draw(st.integers(1, 5))
        return rng.integers(-size, size, part)
    ranked = np.argsort(rng.random([*part[:axis], size, *part[axis + 1 :]]), axis)
    kept = ranked.take(range(part[axis]), axis)
    return kept - size * rng.integers(0, 2, kept.shape)


@st.composite
def elements(draw: st.DrawFn) -> Case:
    shape = draw(sizes)
    axis = draw(st.integers(0, len(shape) - 1))
    shown = axis - draw(st.sampled_from([0, len(shape)]))
    reduction = draw(st.sampled_from(["gather", "none", "add", "mul", "max", "min"]))
    indices = draw(places(shape, axis, distinct=reduction == "none"))
    if reduction == "gather":
        return case("GatherElements", shape, indices, axis=shown)
    return case("ScatterElements", shape, indices, indices.shape, axis=shown, reduction=reduction)


@st.composite
def slices(draw: st.DrawFn) -> Case:
    shape = draw(sizes)
    depth = draw(st.integers(1, len(shape)))
    reduction = draw(st.sampled_from(["gather", "none", "add", "mul", "max", "min"]))
    n = int(np.prod(shape[:depth]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    chosen = rng.choice(n, min(n, draw(st.integers(1, 4))), replace=reduction != "none")
    indices = np.stack(np.unravel_index(chosen, shape[:depth]), -1)
    if reduction == "gather":
        return case("GatherND", shape, indices)
    return case("ScatterND", shape, indices, (len(chosen), *shape[depth:]), reduction=reduction)


@st.composite
def rows(draw: st.DrawFn) -> Case:
    shape = draw(sizes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    indices = draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=4))
    if draw(st.booleans()):
        return case("Gather", shape, np.array(indices, np.int64), axis=axis)
    stacked = np.array([indices, indices[::-1]], np.int64)
    return case("Gather", shape, stacked if draw(st.booleans()) else stacked[0, :1].reshape(()), axis=axis)


@st.composite
def batches(draw: st.DrawFn) -> Case:
    """GatherND with batch axes."""
    batch, shape = draw(sizes)[:2], draw(sizes)
    depth = draw(st.integers(1, len(shape)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    n = draw(st.integers(1, 3))
    indices = np.stack([rng.integers(-size, size, (*batch, n)) for size in shape[:depth]], -1)
    return case("GatherND", (*batch, *shape), indices, batch_dims=len(batch))


@st.composite
def reductions(draw: st.DrawFn) -> Case:
    shape = draw(sizes)
    kinds = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
    given_axes = [np.array([a - draw(st.sampled_from([0, len(shape)])) for a in axes], np.int64)]
    options = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    return case(f"Reduce{draw(st.sampled_from(kinds))}", shape, *given_axes, **options)


@st.composite
def contractions(draw: st.DrawFn) -> Case:
    """Einsum of one to three operands, with diagonals, sums, outer products and ellipses."""
    extent = {letter: draw(st.integers(1, 3)) for letter in "abcd"}
    letters = st.lists(st.sampled_from("abcd"), max_size=3).map("".join)
    terms = draw(st.lists(letters, min_size=1, max_size=3))
    ellipsis = draw(st.sampled_from(["", "", "..."]))
    used = sorted(set("".join(terms)))
    kept = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
    shapes = []
    for term in terms:
        hidden = (draw(st.sampled_from([1, 2])),) if ellipsis else ()
        shapes.append((*hidden, *(extent[c] for c in term)))
    equation = ",".join(ellipsis + term for term in terms) + "->" + ellipsis + "".join(kept)
    return case("Einsum", *shapes, equation=equation)


@st.composite
def products(draw: st.DrawFn) -> Case:
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, inner, columns = (draw(st.integers(1, 4)) for _ in range(3))
    stacks = []
    for matrix in ((rows, inner), (inner, columns)):
        own = [n if draw(st.booleans()) else 1 for n in batch[draw(st.integers(0, len(batch))) :]]
        stacks.append((*own, *matrix))
    left, right = stacks
    vectors = draw(st.sampled_from(["", "", "left", "right", "both"]))
    left = (inner,) if vectors in ("left", "both") else left
    right = (inner,) if vectors in ("right", "both") else right
    return case("MatMul", left, right)


@pytest.mark.parametrize("n", [50, pytest.param(600, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "drawn",
    [pads, elements, slices, rows, batches, reductions, contractions, products],
    ids=lambda f: f.__name__,
)
def test_gradients_over_attributes(drawn: Callable[[], st.SearchStrategy[Case]], n: int) -> None:
    @given(drawn(), st.booleans())
    @settings(max_examples=n, deadline=None, derandomize=True)
    def check(one: Case, symbolic: bool) -> None:
        check_case(one, symbolic=symbolic)

    check()
