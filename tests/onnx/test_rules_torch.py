"""Gradients of single operators on ONNX Runtime, in float32, against PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mollikit_onnx import vjp
from torch.nn import functional as F  # noqa: N812

from tests.onnx.gradient_checks import drawn, one_node_model, run_onnxruntime
from tests.onnx.rule_cases import Case, case

TARGET = np.array([2, 0, 1, 2])
GRID = np.random.default_rng(9).uniform(-1.4, 1.4, (2, 3, 2, 2))


def conv_transpose(x: Any, w: Any, b: Any) -> Any:
    return F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (1, 2))


def resized(**options: Any) -> Callable[..., Any]:
    return lambda x: F.interpolate(x, size=(7, 3), **options)


PAIRS: list[tuple[Case, Callable[..., Any]]] = [
    (
        case("LayerNormalization", (5, 3, 4), (3, 4), (3, 4), axis=1),
        lambda x, s, b: F.layer_norm(x, (3, 4), s, b),
    ),
    (case("RMSNormalization", (5, 4), (4,), opset=23), lambda x, s: F.rms_norm(x, (4,), s, 1e-5)),
    (
        case("InstanceNormalization", (2, 3, 4), (3,), (3,)),
        lambda x, s, b: F.instance_norm(x, weight=s, bias=b),
    ),
    (
        case("GroupNormalization", (2, 6, 4), (6,), (6,), num_groups=3, opset=21),
        lambda x, s, b: F.group_norm(x, 3, s, b),
    ),
    (
        case("LRN", (2, 5, 3, 2), size=3, alpha=0.5, beta=0.6, bias=0.8),
        lambda x: F.local_response_norm(x, 3, 0.5, 0.6, 0.8),
    ),
    (case("LpNormalization", (3, 4), axis=1), lambda x: F.normalize(x, dim=1)),
    (
        case(
            "ConvTranspose",
            (2, 4, 3, 4),
            (4, 3, 3, 2),
            (6,),
            group=2,
            strides=[2, 3],
            pads=[1, 0, 1, 0],
            output_padding=[1, 2],
            dilations=[1, 2],
        ),
        conv_transpose,
    ),
    (
        case(
            "AveragePool", (2, 3, 6, 7), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
        ),
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    (
        case(
            "MaxPool", (2, 3, 6, 7), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 2]
        ),
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), 1, (1, 2)),
    ),
    (
        case("LpPool", (2, 3, 6, 7), kernel_shape=[3, 2], strides=[2, 2]),
        lambda x: F.lp_pool2d(x, 2, (3, 2), 2),
    ),
    (
        case("Resize", (1, 2, 5, 4), None, None, np.array([1, 2, 7, 3]), mode="linear"),
        resized(mode="bilinear", align_corners=False),
    ),
    (
        case(
            "Resize",
            (1, 2, 5, 4),
            None,
            None,
            np.array([1, 2, 7, 3]),
            mode="linear",
            antialias=1,
            exclude_outside=1,
        ),
        resized(mode="bilinear", antialias=True),
    ),
    (
        case(
            "Resize",
            (1, 2, 5, 4),
            None,
            None,
            np.array([1, 2, 7, 3]),
            mode="cubic",
            coordinate_transformation_mode="align_corners",
        ),
        resized(mode="bicubic", align_corners=True),
    ),
    (
        case("GridSample", (2, 3, 4, 5), GRID, mode="cubic", padding_mode="border"),
        lambda x, g: F.grid_sample(x, g, "bicubic", "border", align_corners=False),
    ),
    (case("SoftmaxCrossEntropyLoss", (4, 3), TARGET), lambda x: F.cross_entropy(x, torch.from_numpy(TARGET))),
    (case("PRelu", (2, 3, 4), (3, 1)), lambda x, s: F.prelu(x, s[:, 0])),
    (case("Selu", (3, 4)), F.selu),
    (case("Celu", (3, 4), alpha=2.0), lambda x: F.celu(x, 2.0)),
    (case("Mish", (3, 4)), F.mish),
    (case("Softsign", (3, 4)), F.softsign),
    (case("Shrink", (3, 4), lambd=0.3), lambda x: F.hardshrink(x, 0.3)),
]


@pytest.mark.parametrize(("example", "function"), PAIRS, ids=[str(example) for example, _ in PAIRS])
def test_gradient_is_that_of_autograd(example: Case, function: Callable[..., Any]) -> None:
    model = one_node_model(example, drawn(example), np.float32, symbolic=False)
    feeds = {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in drawn(example).items()}
    wrt = [name for name, x in feeds.items() if x.dtype == np.float32]
    leaves = [torch.from_numpy(feeds[name]).requires_grad_() for name in wrt]
    y = function(*leaves)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    expected = torch.autograd.grad(y, leaves, torch.from_numpy(g))
    got = run_onnxruntime(vjp(model, wrt, ["y0"]), feeds | {"y0.cotangent": g})
    np.testing.assert_allclose(got[0], y.detach().numpy(), rtol=1e-5, atol=1e-5)
    for name, here, there in zip(wrt, got[1:], expected, strict=True):
        scale = max(1.0, float(there.abs().max()))
        np.testing.assert_allclose(here, there.numpy(), rtol=0, atol=1e-5 * scale, err_msg=name)
