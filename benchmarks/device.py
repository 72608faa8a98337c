"""On an accelerator: the estimator over a bare loop on the device, for PyTorch and for ONNX Runtime.

    python benchmarks/device.py                  # on CUDA; writes benchmarks/device.md
    python benchmarks/device.py --device cpu --n 16 --side 64   # whether it runs at all; prints only

EfficientNet-Lite0 and a ResNet-50 (weights at random: only the time matters) at 224 x 224, N = 256, each way
at its best batch. Times are the medians of interleaved repeats in one process. "Gradients alone" asks for the
same number of gradients of one batch of points that lies on the device: the limit. "Host draws" is the same
estimator with points from NumPy, which cross the bus. Captum's NoiseTunnel gives no error bar.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from mollikit_onnx import OnnxOracle
from mollikit_onnx.runtime.selection import COORDINATES
from mollikit_torch import TorchOracle
from torch import nn

import mollikit as mk

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "examples")]

from onnx_gradients import written_down  # noqa: E402

from tests.onnx.architectures import convolutional  # noqa: E402
from tests.onnx.architectures.catalogue import Architecture  # noqa: E402

SIGMA, TARGET = 0.3, 3
BATCHES = (16, 32, 64, 128, 256)
# A function from a batch size to what is timed.
Way = Callable[[int], Callable[[], object]]


def subjects(side: int) -> Mapping[str, Callable[[], tuple[nn.Module, onnx.ModelProto]]]:
    """The same network in PyTorch and in ONNX, by name."""

    def resnet50() -> tuple[nn.Module, onnx.ModelProto]:
        build = lambda: convolutional.ResNet(64, (3, 4, 6, 3), True, 1000)  # noqa: E731
        architecture = Architecture(build, {"image": (3, side, side)})
        net = architecture.net()
        return net, written_down(net, architecture.draw(0, 2), "logits", dynamic=True)

    def efficientnet() -> tuple[nn.Module, onnx.ModelProto]:
        import nets

        return nets.efficientnet_torch(folded=False), nets.efficientnet()

    return {"ResNet-50": resnet50, "EfficientNet-Lite0": efficientnet}


def bare(net: nn.Module, x: torch.Tensor, n: int, batch: int) -> torch.Tensor:
    """The loop that one writes on the device: noise, gradient, sum."""
    total = torch.zeros_like(x)
    for _ in range(n // batch):
        points = (x + SIGMA * torch.randn((batch, *x.shape), device=x.device)).requires_grad_()
        (gradients,) = torch.autograd.grad(net(points)[:, TARGET].sum(), points)
        total += gradients.sum(0)
    return total / n


def alone(net: nn.Module, x: torch.Tensor, n: int, batch: int) -> Callable[[], None]:
    """PyTorch's gradients at points that are there already."""
    points = x.expand(batch, *x.shape).contiguous().requires_grad_()

    def run() -> None:
        for _ in range(n // batch):
            torch.autograd.grad(net(points)[:, TARGET].sum(), points)

    return run


def alone_in_onnx(oracle: OnnxOracle, x: np.ndarray, n: int, batch: int, where: str) -> Callable[[], None]:
    """ONNX Runtime's gradients at points that are there already."""
    session = oracle._sessions.gradient
    (name,) = oracle.input_shapes
    rows = np.stack([np.arange(batch), np.full(batch, TARGET)], axis=1)
    binding = session.io_binding()
    points = ort.OrtValue.ortvalue_from_numpy(np.repeat(x[None], batch, axis=0), where, 0)
    binding.bind_ortvalue_input(name, points)
    binding.bind_cpu_input(COORDINATES, rows)
    binding.bind_output(f"{name}.gradient", where)

    def run() -> None:
        for _ in range(n // batch):
            session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def captum(net: nn.Module, x: torch.Tensor, n: int, batch: int) -> torch.Tensor:
    from captum.attr import NoiseTunnel, Saliency

    found: torch.Tensor = NoiseTunnel(Saliency(net)).attribute(
        x[None].clone().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=n,
        nt_samples_batch_size=batch,
        stdevs=SIGMA,
        target=TARGET,
        abs=False,
    )
    return found


def ways(
    net: nn.Module, model: onnx.ModelProto, x: np.ndarray, n: int, device: torch.device
) -> dict[str, tuple[Way, str]]:
    """By name, what is timed, and what it is compared with."""
    tensor = torch.tensor(x, device=device)
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"

    two = ThreadPoolExecutor(2)

    def ours(oracle: Any, executor: Executor | None = None) -> Way:
        def at(batch: int) -> Callable[[], object]:
            smooth = mk.Pathwise(mk.Gaussian(SIGMA), block=batch)
            return lambda: smooth.estimate(oracle, x, budget=mk.Evaluations(n), rng=0, executor=executor)

        return at

    def by_torch(resident: bool, executor: Executor | None = None) -> Way:
        return ours(TorchOracle(net, target=TARGET, device=device, resident=resident), executor)

    def by_onnx(resident: bool, executor: Executor | None = None) -> Way:
        return ours(OnnxOracle(model, target=TARGET, providers=[provider], resident=resident), executor)

    limit = OnnxOracle(model, target=TARGET, providers=[provider], resident=False)
    return {
        "bare loop in PyTorch": (lambda batch: lambda: bare(net, tensor, n, batch), "bare loop in PyTorch"),
        "PyTorch, gradients alone": (lambda batch: alone(net, tensor, n, batch), "bare loop in PyTorch"),
        "mollikit on PyTorch, device draws": (by_torch(True), "bare loop in PyTorch"),
        "mollikit on PyTorch, device draws, two blocks at once": (
            by_torch(True, two),
            "bare loop in PyTorch",
        ),
        "mollikit on PyTorch, host draws": (by_torch(False), "bare loop in PyTorch"),
        "Captum NoiseTunnel": (lambda batch: lambda: captum(net, tensor, n, batch), "bare loop in PyTorch"),
        "ONNX Runtime, gradients alone": (
            lambda batch: alone_in_onnx(limit, x, n, batch, device.type),
            "bare loop in PyTorch",
        ),
        "mollikit on ONNX Runtime, device draws": (by_onnx(True), "ONNX Runtime, gradients alone"),
        "mollikit on ONNX Runtime, device draws, two blocks at once": (
            by_onnx(True, two),
            "ONNX Runtime, gradients alone",
        ),
        "mollikit on ONNX Runtime, host draws": (by_onnx(False), "ONNX Runtime, gradients alone"),
    }


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def best_of(at: Way, batches: list[int], device: torch.device) -> tuple[int, Callable[[], object]]:
    """The batch that is fastest once warm, and the work at it."""
    times = {}
    for batch in batches:
        work = at(batch)
        work()
        times[batch] = seconds(work, device)
    best = min(times, key=lambda batch: times[batch])
    return best, at(best)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--only", help="a network by name; prints only")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here: --device cpu tries the script out")
    batches = [batch for batch in asked.batches if batch <= asked.n // 2]
    lines = ["| net | way | best batch | ms | over | ratio |", "| --- | --- | --- | --- | --- | --- |"]
    x = np.random.default_rng(0).standard_normal((3, asked.side, asked.side)).astype(np.float32)
    for name, build in subjects(asked.side).items():
        if asked.only not in (None, name):
            continue
        net, model = build()
        found = ways(net.to(device), model, x, asked.n, device)
        best, runs, times = {}, {}, {}
        for way, (at, _) in found.items():
            try:
                best[way], runs[way] = best_of(at, batches, device)
            except Exception as error:  # the others are still worth their time
                print(f"{name}, {way}: {type(error).__name__}: {error}", flush=True)
        for _ in range(asked.repeats):
            for way, run in runs.items():
                times.setdefault(way, []).append(seconds(run, device))
        for way in runs:
            other = found[way][1]
            taken, ratio = np.median(times[way]), np.median(np.divide(times[way], times[other]))
            lines.append(f"| {name} | {way} | {best[way]} | {1e3 * taken:.1f} | {other} | {ratio:.2f} |")
            print(lines[-1], flush=True)
    if device.type == "cuda" and asked.only is None:
        about = (
            f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, onnxruntime "
            f"{ort.__version__}, N = {asked.n}, TF32 as each has it by default."
        )
        text = ["# On an accelerator", "`python benchmarks/device.py`", about, "\n".join(lines)]
        Path(__file__).with_suffix(".md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
