"""Operators that onnx's reference evaluator gets wrong, or rounds to float32, as the standard words them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx.reference.op_run import OpRun


class LRN(OpRun):
    """onnx's leaves channels out where there are more of them than examples."""

    def _run(self, x: np.ndarray, alpha: float, beta: float, bias: float, size: int) -> tuple[np.ndarray]:
        squares = np.stack(
            [(x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1) for c in range(x.shape[1])],
            axis=1,
        )
        return (x / (bias + alpha / size * squares) ** beta,)


class LpNormalization(OpRun):
    """onnx's takes no absolute value."""

    def _run(self, x: np.ndarray, axis: int, p: int) -> tuple[np.ndarray]:
        norm = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm > 0),)


class MeanVarianceNormalization(OpRun):
    """onnx's constants are of float32."""

    def _run(self, x: np.ndarray, axes: list[int]) -> tuple[np.ndarray]:
        axes = tuple(axes)
        return ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9),)


class GroupNormalization(OpRun):
    """onnx's cannot run the version of opset 18."""

    def _run(
        self, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, epsilon: float, num_groups: int, **_: int
    ) -> tuple[np.ndarray]:
        parts = x.reshape(x.shape[0], num_groups, -1)
        centred = parts - parts.mean(-1, keepdims=True)
        n = (centred / np.sqrt(parts.var(-1, keepdims=True) + epsilon)).reshape(x.shape)
        # Of opset 18 there is a number for each group, later one for each channel.
        each = x.shape[1] // scale.size
        scale, shift = (np.repeat(v, each).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, shift))
        return (n * scale + shift,)


class ConvTranspose(OpRun):
    """onnx's fails for several groups with more than one row."""

    def _run(self, x: np.ndarray, w: np.ndarray, bias: Any = None, **attributes: Any) -> tuple[np.ndarray]:
        rank = x.ndim - 2
        group, auto, sizes = attributes["group"] or 1, attributes["auto_pad"], attributes["output_shape"]
        strides = attributes["strides"] or [1] * rank
        dilations = attributes["dilations"] or [1] * rank
        extra = attributes["output_padding"] or [0] * rank
        full = [
            s * (n - 1) + d * (k - 1) + 1 + e
            for s, n, d, k, e in zip(strides, x.shape[2:], dilations, w.shape[2:], extra, strict=True)
        ]
        if sizes is None and auto in ("SAME_UPPER", "SAME_LOWER"):
            sizes = [s * n for s, n in zip(strides, x.shape[2:], strict=True)]
        if sizes is None:
            pads = (attributes["pads"] if auto != "VALID" else None) or [0] * (2 * rank)
            begin = pads[:rank]
            sizes = [n - b - e for n, b, e in zip(full, begin, pads[rank:], strict=True)]
        else:
            total = [max(n - m, 0) for n, m in zip(full, sizes, strict=True)]
            begin = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
        layer = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[rank - 1]
        spread = layer(torch.tensor(x), torch.tensor(w), None, strides, 0, 0, group, dilations).numpy()
        y = np.zeros(
            (*spread.shape[:2], *(max(n, b + m) for n, b, m in zip(full, begin, sizes, strict=True)))
        )
        y[tuple(map(slice, spread.shape))] = spread
        y = y[(slice(None), slice(None), *(slice(b, b + m) for b, m in zip(begin, sizes, strict=True)))]
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class AffineGrid(OpRun):
    """onnx's places are of float32."""

    def _run(self, theta: np.ndarray, size: np.ndarray, align_corners: int) -> tuple[np.ndarray]:
        grid = torch.nn.functional.affine_grid(
            torch.tensor(theta), size.tolist(), align_corners=bool(align_corners)
        )
        return (grid.numpy(),)


class GridSample(OpRun):
    """onnx's coordinates are of float32, and its cubic mode has a border of its own."""

    def _run(
        self, x: np.ndarray, grid: np.ndarray, align_corners: int, mode: str, padding_mode: str
    ) -> tuple[np.ndarray]:
        names = {"linear": "bilinear", "cubic": "bicubic"}
        given = torch.from_numpy(x), torch.from_numpy(grid)
        mode = names.get(mode, mode)
        return (torch.nn.functional.grid_sample(*given, mode, padding_mode, bool(align_corners)).numpy(),)


class DeformConv(OpRun):
    """onnx's coordinates are of float32."""

    def _run(
        self,
        x: np.ndarray,
        w: np.ndarray,
        offset: np.ndarray,
        bias: Any = None,
        mask: Any = None,
        **given: Any,
    ) -> tuple[np.ndarray]:
        n, channels, *picture = x.shape
        outputs, per_group, *kernel = w.shape
        shared, each = given["offset_group"] or 1, outputs // (given["group"] or 1)
        steps, dilations = (given[name] or [1, 1] for name in ("strides", "dilations"))
        pads = given["pads"] or [0] * 4
        sizes = offset.shape[2:]
        offset = offset.reshape(n, shared, *kernel, 2, *sizes)
        mask = np.ones(offset[:, :, :, :, 0].shape) if mask is None else mask
        mask = mask.reshape(n, shared, *kernel, *sizes)
        y = np.zeros((n, outputs, *sizes))
        places = np.indices(sizes).astype(float)
        for e, c, *tap in np.ndindex(n, channels, *kernel):
            where = (e, c * shared // channels, *tap)
            u, v = (offset[where][k] + places[k] * steps[k] + tap[k] * dilations[k] - pads[k] for k in (0, 1))
            read = sum(
                x[e, c, i, j] * np.maximum(1 - abs(u - i), 0) * np.maximum(1 - abs(v - j), 0)
                for i, j in np.ndindex(*picture)
            )
            own = slice(c // per_group * each, (c // per_group + 1) * each)
            y[e, own] += w[own, c % per_group, *tap][:, None, None] * mask[where] * read
        return (y if bias is None else y + bias.reshape(-1, 1, 1),)


OPERATORS = [
    DeformConv,
    GridSample,
    AffineGrid,
    ConvTranspose,
    LRN,
    LpNormalization,
    MeanVarianceNormalization,
    GroupNormalization,
]
