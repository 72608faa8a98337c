"""Sweeps over the attributes of the operators that slide windows, and of some others.

Kinks: inputs are drawn from a continuous law and the steps of the differences are of 1e-5, so that a step
over the point where the largest of a window changes is rare; the examples are the same in every run, and
none has one.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.onnx.gradient_checks import check_case, check_linear
from tests.onnx.rule_cases import Case, case

SWEEP = settings(max_examples=50, deadline=None, derandomize=True)
LONG = settings(SWEEP, max_examples=1500)


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


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Case:
    """Some with explicit pads, some with sizes or a rule for them."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    sizes, kernel = each(1, 4 if rank < 3 else 2), each(1, 3)
    strides, dilations = each(1, 3), each(1, 2)
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    natural = [s * (n - 1) + r + e for s, n, r, e in zip(strides, sizes, reach, extra, strict=True)]
    attributes = {"strides": strides, "dilations": dilations, "output_padding": extra}
    form = draw(st.sampled_from(["pads", "sizes", "same"]))
    if form == "same" and all(r >= s for r, s in zip(reach, strides, strict=True)):
        attributes["output_padding"] = [0] * rank
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    elif form == "sizes":
        attributes["output_shape"] = [
            draw(st.integers(max(n, m - 4), m)) for n, m in zip(sizes, natural, strict=True)
        ]
    else:
        begin = [draw(st.integers(0, min(3, n - 1))) for n in natural]
        attributes["pads"] = begin + [
            draw(st.integers(0, min(3, n - 1 - b))) for n, b in zip(natural, begin, strict=True)
        ]
    group = draw(st.integers(1, 3))
    inputs, outputs = group * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    bias = [(group * outputs,)] if draw(st.booleans()) else []
    shape = (draw(st.integers(1, 2)), inputs, *sizes)
    return case("ConvTranspose", shape, (inputs, outputs, *kernel), *bias, group=group, **attributes)


@st.composite
def resizings(draw: st.DrawFn) -> Case:
    """Those that onnxruntime takes: the last two axes, and any for mode nearest."""
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=4, max_size=4)))
    antialias = mode != "nearest" and draw(st.booleans())
    coordinates = draw(
        st.sampled_from(
            ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
        )
    )
    first = 0 if mode == "nearest" else 2
    sizes = [draw(st.integers(1, 9)) if axis >= first else shape[axis] for axis in range(4)]
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "antialias": int(antialias)}
    if mode == "nearest":
        attributes["nearest_mode"] = draw(
            st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        )
    if mode == "cubic":
        attributes["exclude_outside"] = draw(st.integers(0, 1))
        attributes["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
    if draw(st.booleans()):
        return case("Resize", shape, None, None, np.array(sizes, np.int64), **attributes)
    scales = [draw(st.sampled_from([0.4, 0.5, 1, 1.3, 2, 3])) if axis >= first else 1 for axis in range(4)]
    # Of float32 too: no product is a whole number by a hair, so that its rounding is not in doubt.
    products = [n * s for n, s in zip(shape, scales, strict=True)]
    assume(all(p >= 1 and (p == int(p) or abs(p - round(p)) > 0.01) for p in products))
    return case("Resize", shape, None, np.array(scales, np.float32), **attributes)


@given(transposed_convolutions(), st.booleans())
@SWEEP
def test_transposed_convolution(drawn: Case, symbolic: bool) -> None:
    check_case(drawn, symbolic=symbolic)


@given(resizings(), st.booleans())
@SWEEP
def test_resize(drawn: Case, symbolic: bool) -> None:
    check_linear(drawn, symbolic=symbolic)


@given(poolings("LpPool"), st.sampled_from([1, 2, 3]), st.booleans())
@SWEEP
def test_lp_pool(drawn: Case, p: int, symbolic: bool) -> None:
    check_case(replace(drawn, attributes=drawn.attributes | {"p": p}), symbolic=symbolic)


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


@pytest.mark.full
@given(
    st.one_of(
        convolutions(), transposed_convolutions(), *map(poolings, ("AveragePool", "LpPool", "MaxPool"))
    ),
    st.booleans(),
)
@LONG
def test_windows_at_length(drawn: Case, symbolic: bool) -> None:
    check_case(drawn, symbolic=symbolic)


@pytest.mark.full
@given(resizings(), st.booleans())
@LONG
def test_resize_at_length(drawn: Case, symbolic: bool) -> None:
    check_linear(drawn, symbolic=symbolic)


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
