"""Masks built from HardSigmoid and BatchNormalization: zeros and ones, bit by bit as on the CPU."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import onnx.parser
from mollikit_onnx import pruned, vjp
from on_cuda.device import CPU, Device, asked
from on_cuda.report import Section, table
from on_cuda.workers import Failed, each_in_workers
from onnx import ModelProto

_HIGHS = (6.0, 1.0, 0.1, 3.3, 1e-3, 4.0, 1000.0, 3e-30)
# The forward node, and below what positive number its gradient is one.
_NODES: dict[str, float | None] = {"y = Relu(x)": None} | {
    f"a = Constant<value_float = 0.0>() b = Constant<value_float = {high!r}>() y = Clip(x, a, b)": high
    for high in _HIGHS
}
# Sixteen channels make a block of ONNX Runtime's, and the mask a BatchNormalization; five do not.
_CHANNELS = (16, 5)


def special(high: float) -> np.ndarray:
    """Zeros, subnormal numbers, the neighbours of both ends, huge ones, infinities and NaN; then any bits."""
    kind = np.finfo(np.float32)
    end = np.float32(high)
    ends = [end, np.nextafter(end, np.float32(0)), np.nextafter(end, np.float32(np.inf))]
    named = [
        0,
        kind.smallest_subnormal,
        kind.tiny,
        kind.tiny / 2,
        1e-30,
        kind.eps,
        1,
        kind.max,
        np.inf,
        np.nan,
    ]
    positive = np.array([*named, *ends], np.float32)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    inside = rng.uniform(0, 1, 100_000).astype(np.float32) * np.minimum(end, np.float32(1e3))
    return np.concatenate([positive, -positive, bits, inside])


def model(node: str, channels: int) -> ModelProto:
    """The gradient alone."""
    shape = f"float[N,{channels},H,1]"
    text = f'<ir_version: 10, opset_import: ["" : 20]> m ({shape} x) => ({shape} y) {{ {node} }}'
    return pruned(vjp(onnx.parser.parse_model(text), ["x"], ["y"]), ["x.gradient"])


def row(device: Device, subject: tuple[str, int]) -> tuple[object, ...]:
    """Compare one mask with its formula and with the CPU."""
    node, channels = subject
    high = _NODES[node]
    with np.errstate(all="ignore"):
        values = special(high or 1.0)
        x = np.repeat(values[None, None, :, None], channels, axis=1)
        feeds = {"x": x, "y.cotangent": np.ones_like(x)}
        found, there = (
            session.run(["x.gradient"], asked(session, feeds))[0][0, 0, :, 0]
            for session in (at.session(model(node, channels)) for at in (device, Device(CPU)))
        )
        expected = ((values > 0) & (high is None or values < high)).astype(np.float32)
        # The masks promise nothing about these.
        normal = ~np.isnan(values) & ((values == 0) | (np.abs(values) >= np.finfo(np.float32).tiny))
    wrong, neither = (found != expected) & normal, (found != 0) & (found != 1) & normal
    apart = (found.view(np.uint32) != there.view(np.uint32)) & ~(np.isnan(found) & np.isnan(there))
    name = "Relu" if high is None else f"Clip to {high:g}"

    def shown(where: np.ndarray) -> str:
        some = np.flatnonzero(where)[:6]
        listed = "; ".join(f"{values[k]!r}: {found[k]!r}, CPU {there[k]!r}" for k in some)
        return f"{where.sum()}{f' ({listed})' if len(some) else ''}"

    return name, channels, len(values), shown(wrong), shown(neither), shown(apart)


def run(device: Device, section: Section, seconds: float) -> None:
    """Check all masks."""
    subjects = [(node, channels) for node in _NODES for channels in _CHANNELS]
    until = time.monotonic() + seconds
    rows = []
    for (node, channels), result in each_in_workers(partial(row, device), subjects, 1, 60, until):
        rows.append((node, channels, result.reason) if isinstance(result, Failed) else result)
        print(*rows[-1], sep=" | ", flush=True)
    columns = ("forward", "channels", "values", "wrong", "neither 0 nor 1", "other bits than the CPU's")
    section.add("Wrong and neither: of numbers that are 0, normal or infinite.", "", *table(columns, rows))
