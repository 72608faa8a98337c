"""onnx's reference evaluator, with the operators that it gets wrong or rounds to float32 written anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_pad import Pad_18
from scipy import special

from tests.onnx.float64_formulas import OPERATORS


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


def pooled_over(x: np.ndarray, attributes: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], Any, int]]:
    """Place of each window in the output, the index of what it sees, its number of taps with pads."""
    rank = x.ndim - 2
    strides = attributes["strides"] or [1] * rank
    dilations = attributes["dilations"] or [1] * rank
    pads = attributes["pads"] or [0] * (2 * rank)
    axes = []
    for n, k, s, d, b, e in zip(
        x.shape[2:], attributes["kernel_shape"], strides, dilations, pads[:rank], pads[rank:], strict=True
    ):
        room = n + b + e - d * (k - 1) - 1
        size = (-(-room // s) if attributes["ceil_mode"] else room // s) + 1
        # A window that would start behind the input is left out.
        size -= attributes["ceil_mode"] == 1 and (size - 1) * s >= n + b
        axes.append([[t for j in range(k) if (t := i * s - b + j * d) < n + e] for i in range(size)])
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        taps = [axis[i] for axis, i in zip(axes, place, strict=True)]
        inside = [[t for t in along if 0 <= t < n] for along, n in zip(taps, x.shape[2:], strict=True)]
        yield (
            place,
            (slice(None), slice(None), *np.ix_(*inside)),
            int(np.prod([len(along) for along in taps])),
        )


class AveragePool(OpRun):
    """onnx's counts pads that dilated windows see."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        parts = {}
        for place, window, count in pooled_over(x, attributes):
            seen = x[window].reshape(*x.shape[:2], -1)
            parts[place] = seen.sum(-1) / (count if attributes["count_include_pad"] else seen.shape[-1])
        return (_gathered(parts, x),)


class MaxPool(OpRun):
    """onnx's gives wrong indices in one dimension."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(x.size).reshape(x.shape)
        largest, where = {}, {}
        for place, window, _ in pooled_over(x, attributes):
            seen = x[window].reshape(*x.shape[:2], -1)
            first = seen.argmax(-1)[..., None]
            largest[place] = np.take_along_axis(seen, first, -1)[..., 0]
            where[place] = np.take_along_axis(numbers[window].reshape(seen.shape), first, -1)[..., 0]
        return _gathered(largest, x), _gathered(where, x)


def _gathered(parts: dict[tuple[int, ...], np.ndarray], x: np.ndarray) -> np.ndarray:
    sizes = [last + 1 for last in max(parts)]
    return np.stack(list(parts.values()), -1).reshape(*x.shape[:2], *sizes)


def evaluator(model: ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(
        model, new_ops=[Erf, Gelu, Pad, ConvTranspose, AveragePool, MaxPool, *OPERATORS]
    )
