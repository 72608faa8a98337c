"""Sweeps over the attributes of the operators that slide windows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.onnx.gradient_checks import check_case
from tests.onnx.rule_cases import Case, case

SWEEP = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def windows(draw: st.DrawFn, *, pooling: bool) -> tuple[list[int], list[int], dict[str, list[int]]]:
    """Input sizes, kernel sizes and attributes that leave at least one window."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    # A pool must not see pads alone; a convolution may.
    limits = [k - 1 if pooling else 3 for k in kernel]
    begin, end = ([draw(st.integers(0, limit)) for limit in limits] for _ in range(2))
    sizes = [
        draw(st.integers(max(1, r - b - e, r if pooling else 1), r + 4)) if rank < 3 else max(r, 2)
        for r, b, e in zip(reach, begin, end, strict=True)
    ]
    return sizes, kernel, {"strides": strides, "dilations": dilations, "pads": begin + end}


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    sizes, kernel, attributes = draw(windows(pooling=False))
    group = draw(st.integers(1, 3))
    inputs, outputs = group * draw(st.integers(1, 2)), group * draw(st.integers(1, 2))
    weight = (outputs, inputs // group, *kernel)
    bias = [(outputs,)] if draw(st.booleans()) else []
    return case("Conv", (draw(st.integers(1, 2)), inputs, *sizes), weight, *bias, group=group, **attributes)


@st.composite
def poolings(draw: st.DrawFn, op_type: str) -> Case:
    sizes, kernel, attributes = draw(windows(pooling=True))
    options = {"ceil_mode": draw(st.integers(0, 1))}
    if op_type == "AveragePool":
        options["count_include_pad"] = draw(st.integers(0, 1))
    return case(op_type, (2, draw(st.integers(1, 3)), *sizes), kernel_shape=kernel, **attributes, **options)


@given(convolutions(), st.booleans())
@SWEEP
def test_convolution(drawn: Case, symbolic: bool) -> None:
    check_case(drawn, symbolic=symbolic)


@given(poolings("AveragePool"), st.booleans())
@SWEEP
def test_average_pool(drawn: Case, symbolic: bool) -> None:
    check_case(drawn, symbolic=symbolic)


@given(poolings("MaxPool"), st.booleans())
@SWEEP
def test_max_pool(drawn: Case, symbolic: bool) -> None:
    check_case(drawn, symbolic=symbolic)


@given(st.data())
@SWEEP
def test_broadcasting(data: st.DataObject) -> None:
    full = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=4))
    shapes = [
        tuple(n if data.draw(st.booleans()) else 1 for n in full[data.draw(st.integers(0, len(full))) :])
        for _ in range(2)
    ]
    op_type = data.draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"]))
    check_case(case(op_type, *shapes), symbolic=data.draw(st.booleans()))


@given(st.data())
@SWEEP
def test_slice(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(1, len(shape)))]
    starts = [data.draw(st.integers(-shape[axis], shape[axis] - 1)) for axis in axes]
    stops = [data.draw(st.integers(-7, 7)) for _ in axes]
    steps = [data.draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in axes]
    if all(step == 1 for step in steps) and data.draw(st.booleans()):
        steps = []
    inputs = [np.array(v, np.int64) for v in (starts, stops, axes, steps) if len(v)]
    check_case(case("Slice", shape, *inputs), symbolic=data.draw(st.booleans()))
