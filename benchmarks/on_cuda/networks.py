"""Whole networks: which provider ran their gradients' nodes, and what the gradients take."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import onnx
import onnxruntime as ort
import torch
from mollikit_onnx import pruned, vjp
from on_cuda.device import Device, on_the_cpu, profiled
from on_cuda.report import Section, table
from on_cuda.workers import Failed, each_in_workers
from onnx_gradients import NETWORKS, Network, language, measured

SUBJECTS = (
    "EfficientNet-Lite0, real weights",
    "ResNet-50",
    "ViT-S/16",
    "BERT, 6 layers of 384, 128 tokens",
)
# In the place of what needs a package that is not there.
_STAND_IN = "MobileNetV2"
_SECONDS_EACH = 60.0
_SECONDS_OF_TURNS = 3.0


@dataclass(frozen=True)
class Subject:
    """A network by the name of what could be had, its gradient, and a batch of two."""

    name: str
    network: Network
    gradient: onnx.ModelProto
    classes: int

    @property
    def wanted(self) -> str:
        return f"{self.network.wrt}.gradient"

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        """Inputs, the rows of the two in turn, and the cotangent of output 1."""
        feeds = {name: np.resize(x, (batch, *x.shape[1:])) for name, x in self.network.feeds.items()}
        cotangent = np.zeros((batch, self.classes), np.float32)
        cotangent[:, 1] = 1
        return {**feeds, f"{self.network.of}.cotangent": cotangent}


@cache
def built(name: str) -> Subject:
    torch.set_num_threads(min(8, os.cpu_count() or 1))
    try:
        network = NETWORKS[name][0](2)
    except ImportError as error:
        print(f"{name}: {error}; {_STAND_IN} in its place", flush=True)
        name, network = _STAND_IN, NETWORKS[_STAND_IN][0](2)
    gradient = pruned(vjp(network.model, [network.wrt], [network.of]), [f"{network.wrt}.gradient"])
    with torch.no_grad():
        outputs = network.eager(*(torch.from_numpy(x) for x in network.feeds.values()))
    return Subject(name, network, gradient, outputs.shape[1])


# Placement


def placed(device: Device, name: str) -> tuple[tuple[object, ...], list[str]]:
    """A row of the table, and the nodes on the CPU by operator and outputs."""
    subject = built(name)
    name = subject.name
    _, _, nodes = profiled(device, subject.gradient, subject.feeds(2), [subject.wanted])
    beside = on_the_cpu(nodes, device)
    copies = Counter(node.operator for node in nodes if node.operator.startswith("Memcpy"))
    floats = [node for node in beside if node.makes_floats]
    row = (
        name,
        len(nodes) - copies.total(),
        len(beside),
        len(floats),
        max((node.elements for node in floats), default=0),
        ", ".join(f"{count} {operator}" for operator, count in copies.items()) or "none",
    )
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for node in beside:
        kinds[node.operator, " ".join(kind for kind, _ in node.outputs)].append(node.elements)
    return row, [
        f"- {name}: {len(found)} {operator} of {kind}, up to {max(found)} elements"
        for (operator, kind), found in sorted(kinds.items())
    ]


def place(device: Device, section: Section, seconds: float, only: str) -> None:
    """Write where the nodes of each network's gradient ran, at a batch of 2."""
    until, rows = time.monotonic() + seconds, []
    details: list[str] = []
    subjects = [name for name in SUBJECTS if only in name]
    for name, result in each_in_workers(partial(placed, device), subjects, 1, _SECONDS_EACH, until):
        row, lines = ((name, result.reason), []) if isinstance(result, Failed) else result
        rows.append(row)
        details += lines
        print(*row, sep=" | ", flush=True)
    columns = ("gradient of", "nodes run", "on the CPU", "that make floats", "their largest", "copies")
    section.add(*table(columns, rows), "")
    section.say(*details)


# Time


@dataclass(frozen=True)
class Bound:
    """A session with its inputs and outputs on the device."""

    session: ort.InferenceSession
    binding: ort.IOBinding

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def output(self) -> np.ndarray:
        """The first output, on the host."""
        self()
        return self.binding.copy_outputs_to_cpu()[0]


@dataclass(frozen=True)
class ByTorch:
    """PyTorch's gradient of output 1, from inputs on the device."""

    network: Network
    net: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    tf32: bool

    def __call__(self) -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        if isinstance(self.net, language.Bert):
            leaf = self.net.words(self.inputs[0]).detach().requires_grad_()
            value = self.net.behind(leaf, *self.inputs[1:])
        else:
            leaf = self.inputs[0].detach().requires_grad_()
            value = self.net(leaf)
        (found,) = torch.autograd.grad(value[:, 1].sum(), leaf)
        if found.is_cuda:
            torch.cuda.synchronize()
        return found

    def output(self) -> np.ndarray:
        """The gradient on the host."""
        return self().cpu().numpy()


def calls_of(device: Device, subject: Subject, batch: int) -> dict[str, Bound | ByTorch]:
    """All settings by name, each without TF32 and with it."""
    network, feeds = subject.network, subject.feeds(batch)
    calls: dict[str, Bound | ByTorch] = {}
    own = tuple(torch.from_numpy(feeds[n]).to(device.name) for n in network.feeds)
    nets = {"eager": (network.eager.to(device.name), own)}
    if network.best is not network.eager:
        last = tuple(x.contiguous(memory_format=torch.channels_last) for x in own)
        nets["folded"] = (network.best.to(device.name), last)
    for tf32 in (False, True):
        at = Device(device.provider, tf32)
        for key, model, wanted in (
            ("ours", subject.gradient, subject.wanted),
            ("forward", network.model, network.of),
        ):
            session = at.session(model)
            calls[_key(key, tf32)] = Bound(session, at.bound(session, feeds, [wanted]))
        for key, (net, inputs) in nets.items():
            calls[_key(key, tf32)] = ByTorch(network, net, inputs, tf32)
    return calls


def _key(what: str, tf32: bool) -> str:
    return f"{what}, TF32" if tf32 else what


def timed(device: Device, what: tuple[str, int]) -> list[tuple[object, ...]]:
    """Rows of the table: without TF32 and with it."""
    torch.backends.cudnn.benchmark = True
    torch.cuda.empty_cache()
    began = time.perf_counter()
    subject, batch = built(what[0]), what[1]
    calls = calls_of(device, subject, batch)
    expected = calls["eager"].output()
    errors = {
        key: float(np.linalg.norm(call.output() - expected) / np.linalg.norm(expected))
        for key, call in calls.items()
        if not key.startswith("forward")
    }
    ready = time.perf_counter() - began
    times = measured(calls, _SECONDS_OF_TURNS)
    end = (f"{ready:.1f}", len(times["ours"]))
    return [(*_row(subject.name, batch, times, errors, tf32), *end) for tf32 in (False, True)]


def _row(
    name: str, batch: int, times: dict[str, list[float]], errors: dict[str, float], tf32: bool
) -> tuple[object, ...]:
    def column(what: str) -> list[float]:
        return times.get(_key(what, tf32), times[_key("eager", tf32)])

    def over(*others: str) -> str:
        lowest = [min(turn) for turn in zip(*(column(other) for other in others), strict=True)]
        return f"{statistics.median(a / b for a, b in zip(column('ours'), lowest, strict=True)):.2f}"

    def error(what: str) -> str:
        found = errors.get(_key(what, tf32))
        return "-" if found is None else f"{found:.1e}"

    settings = ("ours", "forward", "eager", "folded")
    medians = [
        f"{statistics.median(times[_key(what, tf32)]):.2f}" if _key(what, tf32) in times else "-"
        for what in settings
    ]
    ratios = over("eager"), over("eager", "folded"), over("forward")
    mode = "on" if tf32 else "off"
    return (name, batch, mode, *medians, *ratios, *(error(what) for what in ("ours", "eager", "folded")))


COLUMNS = (
    "network",
    "batch",
    "TF32",
    "ours ms",
    "forward ms",
    "eager ms",
    "folded ms",
    "over eager",
    "over best",
    "over forward",
    "error",
    "eager's",
    "folded's",
    "ready s",
    "turns",
)
ABOUT = (
    "The gradient of one logit by the input, from inputs on the device to a gradient on the device; medians "
    "of interleaved turns in one process, each synchronised; ratios are medians of the turns' ratios, below "
    "1 where we are faster. Ours and forward: ONNX Runtime with IO binding, `cudnn_conv_algo_search` at its "
    "default; forward is its inference of the model. Eager: PyTorch, NCHW. Folded: BatchNorm in the "
    "convolutions, channels last. PyTorch with `cudnn.benchmark`. Best: the faster of both. Errors are "
    "relative to eager without TF32. Ready: building all sessions, and their first runs."
)


def measure(device: Device, section: Section, seconds: float, only: str, batches: Sequence[int]) -> None:
    """Write what gradients take."""
    until = time.monotonic() + seconds
    subjects = [(name, batch) for batch in batches for name in SUBJECTS if only in name]
    section.say(ABOUT, "", *table(COLUMNS, []))
    work: Callable[[tuple[str, int]], list[tuple[object, ...]]] = partial(timed, device)
    for subject, result in each_in_workers(work, subjects, 1, _SECONDS_EACH, until):
        rows = [(*subject, result.reason)] if isinstance(result, Failed) else result
        section.say(*table(COLUMNS, rows)[2:])
