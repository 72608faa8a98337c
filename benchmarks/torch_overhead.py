"""What TorchOracle and the estimator add to a bare PyTorch loop.

    python benchmarks/torch_overhead.py            # writes benchmarks/torch_overhead.md
    python benchmarks/torch_overhead.py --quick    # fewer repeats, prints only

Times are compared interleaved in one process, as the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import foundation
import nets
import numpy as np
import torch
from mollikit_torch import TorchOracle

import mollikit as mk

HERE = Path(__file__).parent


def bare(
    net: torch.nn.Module, x: torch.Tensor, target: int, n: int, batch: int, sigma: float
) -> torch.Tensor:
    """What one writes without mollikit at its best: frozen weights, channels_last, a mean."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(x)
    for _ in range(n // batch):
        points = x + sigma * torch.randn((batch, *x.shape), generator=generator)
        points = points.contiguous(memory_format=torch.channels_last).requires_grad_()
        (gradients,) = torch.autograd.grad(net(points)[:, target].sum(), points)
        total += gradients.sum(0)
    return total / n


def bare_calls(net: torch.nn.Module, points: torch.Tensor, target: int, n: int) -> None:
    """The model's part alone: gradients of the same points again and again."""
    for _ in range(n // len(points)):
        leaf = points.contiguous(memory_format=torch.channels_last).requires_grad_()
        torch.autograd.grad(net(leaf)[:, target].sum(), leaf)


def compared(
    net: torch.nn.Module, x: np.ndarray, target: int, n: int, batches: tuple[int, ...], repeats: int
) -> str:
    """Estimator over bare loop, and oracle over bare calls, as the cells of a row."""
    oracle, tensor = TorchOracle(net, target=target), torch.from_numpy(x)
    sigma = 0.15 * float(np.ptp(x))

    def loop(batch: int) -> torch.Tensor:
        return bare(net, tensor, target, n, batch, sigma)

    times = {}
    for batch in batches:
        loop(batch)
        began = time.perf_counter()
        loop(batch)
        times[batch] = time.perf_counter() - began
    best = min(times, key=times.__getitem__)
    smooth, budget = mk.Pathwise(mk.Gaussian(sigma), block=best), mk.Evaluations(n)
    points = np.random.default_rng(0).standard_normal((best, *x.shape)).astype(np.float32)

    def calls() -> None:
        for _ in range(n // best):
            oracle.value_and_gradient(points)

    whole, ours, theirs = foundation.ratios(
        lambda: smooth.estimate(oracle, x, budget=budget, rng=0), lambda: loop(best), repeats
    )
    part, *_ = foundation.ratios(calls, lambda: bare_calls(net, torch.from_numpy(points), target, n), repeats)
    return f"{n} | {best} | {ours:.3f} | {theirs:.3f} | **{whole:.3f}** | {part:.3f}"


def rows(repeats: int) -> list[str]:
    """One line for each net."""
    images, _ = nets.digits(28)
    large, small = nets.efficientnet_torch(folded=False), nets.cnn()
    return [
        f"| EfficientNet-Lite0, 3x224x224 | {compared(large, nets.chelsea(), 282, 32, (8, 16), repeats)} |",
        f"| CNN, 1x28x28 | {compared(small, images[3], 3, 2048, (32, 64, 128, 256), repeats)} |",
    ]


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats; print, do not write")
    quick = parser.parse_args().quick
    repeats = 3 if quick else 9
    lines = [
        "# Overhead over PyTorch",
        "",
        *foundation.machine(),
        "",
        "The bare loop freezes the weights, runs in channels_last, draws its own normals by torch and keeps "
        "a mean; it has no error bar. Both at the bare loop's best batch of those tried; ratios are medians "
        f"of {repeats} interleaved pairs. Oracle: `value_and_gradient` over autograd on the same points.",
        "",
        "| model | N | batch | estimator s | bare s | estimator / bare | oracle / bare |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows(repeats),
    ]
    print("\n".join(lines))
    if not quick:
        (HERE / "torch_overhead.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
