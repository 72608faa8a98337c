"""onnx's reference evaluator, with the operators that it gets wrong or rounds to float32 written anew."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_pad import Pad_18
from scipy import special


class Erf(OpRun):
    """onnx's is in float32 whatever the input."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (special.erf(x).astype(x.dtype),)


class Gelu(OpRun):
    """onnx's takes the error function in float32."""

    def _run(self, x: np.ndarray, approximate: str | None = None) -> tuple[np.ndarray]:
        if approximate == "tanh":
            return ((0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))).astype(x.dtype),)
        return ((x * special.ndtr(x)).astype(x.dtype),)


class Pad(OpRun):
    """onnx's does not know negative pads, which crop."""

    def _run(
        self, data: np.ndarray, pads: np.ndarray, value: Any = None, axes: Any = None, mode: Any = None
    ) -> Any:
        if mode != "constant":
            return Pad_18._run(self, data, pads, value, axes, mode)  # type: ignore[arg-type]
        axes = range(data.ndim) if axes is None else axes
        widths, kept = [(0, 0)] * data.ndim, [slice(None)] * data.ndim
        for axis, begin, end in zip(axes, *pads.reshape(2, -1).tolist(), strict=True):
            widths[axis] = (max(begin, 0), max(end, 0))
            kept[axis] = slice(max(-begin, 0), data.shape[axis] + min(end, 0))
        return (np.pad(data[tuple(kept)], widths, constant_values=value or 0).astype(data.dtype),)


class ConvTranspose(OpRun):
    """onnx's fails for several groups with more than one row."""

    def _run(self, x: np.ndarray, w: np.ndarray, bias: Any = None, **attributes: Any) -> tuple[np.ndarray]:
        rank = x.ndim - 2
        group = attributes["group"] or 1
        strides = attributes["strides"] or [1] * rank
        dilations = attributes["dilations"] or [1] * rank
        pads = attributes["pads"] or [0] * (2 * rank)
        extra = attributes["output_padding"] or [0] * rank
        full = [
            s * (n - 1) + d * (k - 1) + 1 + e
            for s, n, d, k, e in zip(strides, x.shape[2:], dilations, w.shape[2:], extra, strict=True)
        ]
        y = np.zeros((x.shape[0], w.shape[1] * group, *full), x.dtype)
        x = x.reshape(x.shape[0], group, -1, *x.shape[2:])
        w = w.reshape(group, -1, *w.shape[1:])
        for offset in itertools.product(*map(range, w.shape[3:])):
            spread = np.einsum("ngi...,gio->ngo...", x, w[(..., *offset)])
            places = tuple(
                slice(d * o, d * o + s * (n - 1) + 1, s)
                for d, o, s, n in zip(dilations, offset, strides, x.shape[3:], strict=True)
            )
            y[(slice(None), slice(None), *places)] += spread.reshape(y.shape[0], y.shape[1], *x.shape[3:])
        kept = tuple(slice(b, n - e) for b, e, n in zip(pads[:rank], pads[rank:], full, strict=True))
        return (y[(slice(None), slice(None), *kept)],)


class MaxPool(OpRun):
    """onnx's gives wrong indices in one dimension."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, np.ndarray]:
        rank = x.ndim - 2
        kernel = attributes["kernel_shape"]
        strides = attributes["strides"] or [1] * rank
        dilations = attributes["dilations"] or [1] * rank
        pads = attributes["pads"] or [0] * (2 * rank)
        sizes = []
        for axis, (n, k, s, d) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True)):
            room = n + pads[axis] + pads[rank + axis] - d * (k - 1) - 1
            size = (-(-room // s) if attributes["ceil_mode"] else room // s) + 1
            sizes.append(size - (attributes["ceil_mode"] == 1 and (size - 1) * s >= n + pads[axis]))
        numbers = np.arange(x.size).reshape(x.shape)
        y = np.empty((*x.shape[:2], *sizes), x.dtype)
        indices = np.empty(y.shape, np.int64)
        for place in itertools.product(*map(range, sizes)):
            taps = [
                [t for j in range(k) if 0 <= (t := i * s - b + j * d) < n]
                for i, k, s, d, b, n in zip(
                    place, kernel, strides, dilations, pads[:rank], x.shape[2:], strict=True
                )
            ]
            window = (slice(None), slice(None), *np.ix_(*taps))
            values = x[window].reshape(*x.shape[:2], -1)
            first = values.argmax(-1)[..., None]
            y[(..., *place)] = np.take_along_axis(values, first, -1)[..., 0]
            indices[(..., *place)] = np.take_along_axis(numbers[window].reshape(values.shape), first, -1)[
                ..., 0
            ]
        return y, indices


def evaluator(model: ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(model, new_ops=[Erf, Gelu, Pad, ConvTranspose, MaxPool])
