"""One node at a time: does CUDA run it, in which types, and to which numbers?

What a noise drawn inside a graph wants: integer arithmetic that wraps, and floats from it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx.parser
from on_cuda.conformance import gap
from on_cuda.device import Device, on_the_cpu, profiled
from on_cuda.outcomes import EPSILON
from on_cuda.report import Section, table
from on_cuda.workers import Failed, each_in_workers
from scipy import special

_ONNX = {"float32": "float", "float64": "double"}
_MANY = 38_000_000
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """A graph by its nodes, in two inputs a and b of a type, and the same in NumPy."""

    name: str
    nodes: str
    dtype: str
    by_numpy: Callable[[np.ndarray, np.ndarray], np.ndarray]
    made: str = ""  # another type of the output

    @property
    def model(self) -> onnx.ModelProto:
        kind, made = (_ONNX.get(t, t) for t in (self.dtype, self.made or self.dtype))
        ports = f"{kind}[N,M] a, {kind}[N,M] b"
        text = f'<ir_version: 10, opset_import: ["" : 20]> m ({ports}) => ({made} y) {{ {self.nodes} }}'
        model = onnx.parser.parse_model(text)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        return model

    def feeds(self, rows: int = 64, columns: int = 64) -> Arrays:
        """Any bits for integers, numbers around 1 for floats; no divisor is 0."""
        rng = np.random.default_rng(0)
        kind, shape = np.dtype(self.dtype), (rows, columns)
        if kind.kind == "f":
            return {
                "a": rng.standard_normal(shape).astype(kind),
                "b": rng.uniform(0.5, 2, shape).astype(kind),
            }
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        a, b = (rng.integers(low, high, shape, kind, endpoint=True) for _ in range(2))
        # Of all sizes, so that quotients are not all 0 or 1.
        b = b >> rng.integers(0, 8 * kind.itemsize - 1, shape).astype(kind)
        return {"a": a, "b": np.where(b == 0, kind.type(1), b)}


def probes() -> list[Probe]:
    """All of them."""
    return [*_arithmetic(), *_bits(), *_casts(), *_functions(), *_shapes()]


def _arithmetic() -> list[Probe]:
    truncated = lambda a, b: np.where((a % b != 0) & ((a < 0) != (b < 0)), a // b + 1, a // b)  # noqa: E731
    found = []
    for dtype in ("uint64", "int64", "uint32", "int32"):
        found += [
            Probe(op, f"y = {op}(a, b)", dtype, f)
            for op, f in (("Mul", np.multiply), ("Add", np.add), ("Sub", np.subtract), ("Mod", np.mod))
        ]
        found.append(Probe("Div", "y = Div(a, b)", dtype, np.floor_divide if dtype[0] == "u" else truncated))
    for dtype in ("float32", "float64"):
        found += [
            Probe(op, f"y = {op}(a, b)", dtype, f)
            for op, f in (
                ("Mul", np.multiply),
                ("Add", np.add),
                ("Sub", np.subtract),
                ("Div", np.divide),
                ("MatMul", np.matmul),
            )
        ]
        found.append(Probe("Mod, fmod", "y = Mod<fmod = 1>(a, b)", dtype, np.fmod))
    return found


def _bits() -> list[Probe]:
    found = []
    for dtype in ("uint32", "uint64"):
        width = 8 * np.dtype(dtype).itemsize
        some = f"k = Constant<value = {dtype}[1] {{7}}>() "
        for way, f in (("LEFT", np.left_shift), ("RIGHT", np.right_shift)):
            by = lambda a, b, f=f: f(a, a.dtype.type(7))  # noqa: E731
            found.append(
                Probe(f"BitShift {way}", f'{some}y = BitShift<direction = "{way}">(a, k)', dtype, by)
            )
        found += [
            Probe(op, f"y = {op}(a, b)", dtype, f)
            for op, f in (
                ("BitwiseXor", np.bitwise_xor),
                ("BitwiseAnd", np.bitwise_and),
                ("BitwiseOr", np.bitwise_or),
            )
        ]
        half = f"k = Constant<value = {dtype}[1] {{{2 ** (width // 2)}}}>() y = Div(a, k)"
        high = lambda a, _, w=width: a >> a.dtype.type(w // 2)  # noqa: E731
        found.append(Probe("Div by a power of 2", half, dtype, high))
        for op, f in (("Equal", np.equal), ("Less", np.less)):
            by = lambda a, b, f=f: f(a, b).astype("float32")  # noqa: E731
            found.append(Probe(op, f"c = {op}(a, b) y = Cast<to = 1>(c)", dtype, by, "float32"))
    return found


def _casts() -> list[Probe]:
    numbers = {"float32": 1, "int32": 6, "int64": 7, "float64": 11, "uint32": 12, "uint64": 13}
    pairs = (
        ("int64", "uint64"),
        ("uint64", "int64"),
        ("int64", "uint32"),
        ("uint64", "uint32"),
        ("uint32", "uint64"),
        ("uint32", "float32"),
        ("uint32", "float64"),
        ("uint64", "float32"),
        ("uint64", "float64"),
        ("int64", "float32"),
        ("int64", "float64"),
        ("int32", "float32"),
        ("float64", "float32"),
        ("float32", "float64"),
    )
    return [
        Probe(f"Cast to {to}", f"y = Cast<to = {numbers[to]}>(a)", of, lambda a, _, to=to: a.astype(to), to)
        for of, to in pairs
    ]


def _functions() -> list[Probe]:
    one_of = {
        "Sin": np.sin,
        "Cos": np.cos,
        "Exp": np.exp,
        "Tan": np.tan,
        "Atan": np.arctan,
        "Tanh": np.tanh,
        "Erf": special.erf,
        "Sign": np.sign,
        "Abs": np.abs,
        "Floor": np.floor,
        "Round": np.round,
        "Neg": np.negative,
    }
    positive = {"Log": np.log, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal}
    axis = "k = Constant<value_ints = [1]>() "
    found = []
    for dtype in ("float32", "float64"):
        found += [Probe(op, f"y = {op}(a)", dtype, lambda a, _, f=f: f(a)) for op, f in one_of.items()]
        found += [Probe(op, f"y = {op}(b)", dtype, lambda _, b, f=f: f(b)) for op, f in positive.items()]
        found += [
            Probe(op, f"{axis}y = {op}<keepdims = 0>(a, k)", dtype, lambda a, _, f=f: f(a))
            for op, f in (
                ("ReduceMean", lambda a: a.mean(1)),
                ("ReduceSum", lambda a: a.sum(1)),
                ("ReduceSumSquare", lambda a: (a * a).sum(1)),
            )
        ]
        found.append(Probe("Pow", "y = Pow(b, a)", dtype, lambda a, b: b**a))
        found.append(Probe("Where", "c = Less(a, b) y = Where(c, a, b)", dtype, np.minimum))
        found.append(Probe("Max", "y = Max(a, b)", dtype, np.maximum))
    pool = (
        "s = Constant<value_ints = [1, 1, 64, 64]>() x = Reshape(a, s) "
        "y = AveragePool<kernel_shape = [5, 5], strides = [5, 5], ceil_mode = 1, count_include_pad = 0>(x)"
    )
    found.append(Probe("AveragePool, ceil_mode", pool, "float32", _pooled))
    return found


def _pooled(a: np.ndarray, _: np.ndarray) -> np.ndarray:
    cells = [[a[i : i + 5, j : j + 5].mean() for j in range(0, 64, 5)] for i in range(0, 64, 5)]
    return np.array(cells, a.dtype)[None, None]


def _shapes() -> list[Probe]:
    spread = "s = Constant<value_ints = [3, 64, 64]>() "
    row = (
        "k = Constant<value_ints = [0]>() l = Constant<value_ints = [5]>() z = Constant<value_ints = [1]>() "
    )
    edge = "p = Constant<value_ints = [1, 0, 2, 3]>() "
    nodes: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
        "Reshape": ("s = Constant<value_ints = [4, -1]>() y = Reshape(a, s)", lambda a, _: a.reshape(4, -1)),
        "Expand": (f"{spread}y = Expand(a, s)", lambda a, _: np.broadcast_to(a, (3, 64, 64))),
        "Concat": ("y = Concat<axis = 1>(a, b)", lambda a, b: np.concatenate([a, b], 1)),
        "Slice": (f"{row}y = Slice(a, k, l, z)", lambda a, _: a[:, :5]),
        "Pad": (f"{edge}y = Pad(a, p)", lambda a, _: np.pad(a, ((1, 2), (0, 3)))),
        "Transpose": ("y = Transpose(a)", lambda a, _: a.T),
        "Gather": ("k = Constant<value_ints = [3, 1]>() y = Gather(a, k)", lambda a, _: a[[3, 1]]),
        "CumSum": ("k = Constant<value_int = 1>() y = CumSum(a, k)", lambda a, _: np.cumsum(a, 1, a.dtype)),
    }
    found = [
        Probe(name, text, dtype, f)
        for dtype in ("float32", "float64", "int64", "uint64", "uint32")
        for name, (text, f) in nodes.items()
    ]
    steps = "o = Constant<value_int = 0>() i = Constant<value_int = 1>() n = Size(a) y = Range(o, n, i)"
    return [*found, Probe("Range", steps, "int64", lambda a, _: np.arange(a.size))]


def probed(device: Device, probe: Probe) -> tuple[object, ...]:
    """A row of the table."""
    feeds = probe.feeds()
    with np.errstate(all="ignore"):
        expected = np.asarray(probe.by_numpy(feeds["a"], feeds["b"]))
    _, (found,), nodes = profiled(device, probe.model, feeds, ["y"])
    if expected.dtype.name in EPSILON:
        units = gap(found, expected) / EPSILON[expected.dtype.name]
        same = "same" if units == 0 else f"{units:.2g} units"
    else:
        off = int((found != expected).sum()) if found.shape == expected.shape else "another shape"
        same = "same" if off == 0 else f"{off} of {expected.size} differ"
    beside = ", ".join(sorted({node.operator for node in on_the_cpu(nodes, device)}))
    where = f"CPU: {beside}" if beside else device.name
    return probe.name, probe.dtype, where, same


def timed(device: Device, probe: Probe) -> tuple[object, ...]:
    """Milliseconds of a node over many elements on the device."""
    session = device.session(probe.model)
    binding = device.bound(session, probe.feeds(1000, _MANY // 1000), ["y"])
    times = []
    for _ in range(12):
        began = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(1000 * (time.perf_counter() - began))
    return probe.name, probe.dtype, f"{_MANY} elements", f"{statistics.median(times[2:]):.2f} ms"


def run(device: Device, section: Section, seconds: float, only: str) -> None:
    """Probe all nodes, then time some."""
    until = time.monotonic() + seconds
    listed = [probe for probe in probes() if only in f"{probe.name} {probe.dtype}"]
    long = {("Mul", "uint64"), ("Div", "uint64"), ("Cast to float32", "uint64"), ("Mul", "uint32")}
    long |= {("Mul", "float32"), ("BitwiseXor", "uint32"), ("Sin", "float32")}
    section.say(
        "Floats: norm of the difference to NumPy over the norm, in units of the last place.",
        "",
        *table(("node", "of", "ran on", "beside NumPy"), []),
    )
    timings = [probe for probe in listed if (probe.name, probe.dtype) in long]
    for work, some, workers in ((probed, listed, 4), (timed, timings, 1)):
        at = lambda k, work=work, some=some: work(device, some[k])  # noqa: E731
        for k, result in each_in_workers(at, range(len(some)), workers, 30, until):
            failed = isinstance(result, Failed)
            row = (some[k].name, some[k].dtype, "-", result.reason) if failed else result
            section.say(*table(("",) * 4, [row])[2:])
