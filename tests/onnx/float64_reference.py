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

from tests.onnx.float64_control import CONTROL
from tests.onnx.float64_formulas import OPERATORS
from tests.onnx.float64_recurrent import RECURRENT


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


def pooled_over(x: np.ndarray, attributes: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], Any, int]]:
    """Place of each window in the output, the index of what it sees, its number of taps with pads."""
    rank = x.ndim - 2
    strides = attributes["strides"] or [1] * rank
    dilations = attributes["dilations"] or [1] * rank
    pads = attributes["pads"] or [0] * (2 * rank)
    if attributes["auto_pad"] in ("SAME_UPPER", "SAME_LOWER"):
        reach = [d * (k - 1) + 1 for k, d in zip(attributes["kernel_shape"], dilations, strict=True)]
        total = [
            max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(x.shape[2:], strides, reach, strict=True)
        ]
        below = [t // 2 for t in total]
        above = [t - b for t, b in zip(total, below, strict=True)]
        pads = below + above if attributes["auto_pad"] == "SAME_UPPER" else above + below
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


class LpPool(OpRun):
    """onnx's divides by less than the window where that sees pads."""

    def _run(self, x: np.ndarray, p: int, **attributes: Any) -> tuple[np.ndarray]:
        windows = pooled_over(x, attributes)
        parts = {
            place: (np.abs(x[w]) ** p).sum(tuple(range(2, x.ndim))) ** (1 / p) for place, w, _ in windows
        }
        return (_gathered(parts, x),)


class GlobalLpPool(OpRun):
    """Missing in onnx."""

    def _run(self, x: np.ndarray, p: int) -> tuple[np.ndarray]:
        return ((np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


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
    own = [Erf, Gelu, Pad, AveragePool, LpPool, GlobalLpPool, MaxPool]
    return ReferenceEvaluator(model, new_ops=[*own, *CONTROL, *RECURRENT, *OPERATORS])
