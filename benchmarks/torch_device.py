"""PyTorch on an accelerator: the estimator over a bare loop on the device, and the time that others take.

    python benchmarks/torch_device.py                  # on CUDA; writes benchmarks/torch_device.md
    python benchmarks/torch_device.py --device cpu --n 16 --side 64   # whether it runs at all; prints only

EfficientNet-Lite0 and a ResNet-50 (weights at random: only the time matters) at 224 x 224, N = 256, each way
at its best batch. Times are the medians of interleaved repeats in one process. "Host draws" is the same
estimator with points from NumPy, which cross the bus. Captum's NoiseTunnel gives no error bar.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import nets
import numpy as np
import torch
from mollikit_torch import TorchOracle
from torch import nn

import mollikit as mk

SIGMA = 0.3


class Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = before == after and stride == 1
        self.past: nn.Module = nn.Identity()
        if not same:
            self.past = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.past(x))


def resnet50() -> nn.Module:
    """25.6 million parameters in the layout of He et al. 2016."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            layers.append(Bottleneck(before, width, stride if block == 0 else 1))
            before = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def bare(net: nn.Module, x: torch.Tensor, target: int, n: int, batch: int) -> torch.Tensor:
    """The loop that one writes on the device: noise, gradient, sum."""
    total = torch.zeros_like(x)
    for _ in range(n // batch):
        points = (x + SIGMA * torch.randn((batch, *x.shape), device=x.device)).requires_grad_()
        (gradients,) = torch.autograd.grad(net(points)[:, target].sum(), points)
        total += gradients.sum(0)
    return total / n


def captum(net: nn.Module, x: torch.Tensor, target: int, n: int, batch: int) -> torch.Tensor:
    from captum.attr import NoiseTunnel, Saliency

    tunnel = NoiseTunnel(Saliency(net))
    found: torch.Tensor = tunnel.attribute(
        x[None].clone().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=n,
        nt_samples_batch_size=batch,
        stdevs=SIGMA,
        target=target,
        abs=False,
    )
    return found


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def ways(
    net: nn.Module, x: np.ndarray, n: int, device: torch.device
) -> dict[str, Callable[[int], Callable[[], object]]]:
    """By name, from a batch size to what is timed."""
    tensor, target = torch.tensor(x, device=device), 3

    def ours(resident: bool) -> Callable[[int], Callable[[], object]]:
        oracle = TorchOracle(net, target=target, device=device, resident=resident)

        def at(batch: int) -> Callable[[], object]:
            smooth = mk.Pathwise(mk.Gaussian(SIGMA), block=batch)
            return lambda: smooth.estimate(oracle, x, budget=mk.Evaluations(n), rng=0)

        return at

    return {
        "bare loop": lambda batch: lambda: bare(net, tensor, target, n, batch),
        "mollikit, device draws": ours(True),
        "mollikit, host draws": ours(False),
        "Captum NoiseTunnel": lambda batch: lambda: captum(net, tensor, target, n, batch),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here: --device cpu tries the script out")
    batches = [batch for batch in (8, 16, 32, 64, 128, 256) if batch <= asked.n // 2]
    lines = ["| net | way | best batch | ms | over the bare loop |", "| --- | --- | --- | --- | --- |"]
    subjects = {"EfficientNet-Lite0": nets.efficientnet_torch(folded=False), "ResNet-50": resnet50()}
    x = np.random.default_rng(0).standard_normal((3, asked.side, asked.side)).astype(np.float32)
    for name, net in subjects.items():
        found = ways(net.to(device), x, asked.n, device)
        best, runs = {}, {}
        for way, at in found.items():
            at(batches[0])()  # warm
            best[way] = min(batches, key=lambda batch, at=at: seconds(at(batch), device))  # type: ignore[misc]
            runs[way] = at(best[way])
        times = {way: [] for way in runs}  # type: dict[str, list[float]]
        for _ in range(asked.repeats):
            for way, run in runs.items():
                times[way].append(seconds(run, device))
        for way in runs:
            ratio = np.median(np.divide(times[way], times["bare loop"]))
            lines.append(
                f"| {name} | {way} | {best[way]} | {1e3 * np.median(times[way]):.1f} | {ratio:.2f} |"
            )
            print(lines[-1], flush=True)
    if device.type == "cuda":
        about = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, N = {asked.n}\n\n"
        Path(__file__).with_suffix(".md").write_text(about + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
