"""Operators that onnx's reference evaluator gets wrong, or rounds to float32, as the standard words them."""

from __future__ import annotations

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


class AffineGrid(OpRun):
    """onnx's places are of float32."""

    def _run(self, theta: np.ndarray, size: np.ndarray, align_corners: int) -> tuple[np.ndarray]:
        grid = torch.nn.functional.affine_grid(
            torch.from_numpy(theta), size.tolist(), align_corners=bool(align_corners)
        )
        return (grid.numpy(),)


OPERATORS = [AffineGrid, LRN, LpNormalization, MeanVarianceNormalization, GroupNormalization]
