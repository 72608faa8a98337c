"""The foundation's figures in one run: overhead, memory, speed against PyTorch, variance reduction.

    python benchmarks/foundation.py            # writes benchmarks/foundation.md
    python benchmarks/foundation.py --quick    # fewer repeats, prints only

Times are compared interleaved in one process, as the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mollikit as mk

HERE = Path(__file__).parent


def bare(oracle: mk.GradientOracle, x: np.ndarray, n: int, batch: int, sigma: float, seed: int) -> np.ndarray:
    """What one writes without mollikit: float32 normals, a call, a running mean; no error bar."""
    rng = np.random.default_rng(seed)
    total = np.zeros(x.shape, np.float32)
    for _ in range(n // batch):
        noise = rng.standard_normal((batch, *x.shape), dtype=np.float32)
        total += oracle.value_and_gradient(x + np.float32(sigma) * noise)[1].sum(0)
    return total / n


def ratios(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float, float]:
    """Median of first / second over interleaved runs, and the median seconds of each."""
    first(), second()
    times = []
    for _ in range(repeats):
        pair = []
        for call in (first, second):
            began = time.perf_counter()
            call()
            pair.append(time.perf_counter() - began)
        times.append(pair)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return statistics.median(p / q for p, q in times), a, b


def overhead(repeats: int) -> list[str]:
    """(a) Estimator over bare loop, each at its best batch of those tried."""
    import nets
    from mollikit_onnx import OnnxOracle

    lines = [
        "## (a) Estimator over a bare loop",
        "",
        "The bare loop draws its own float32 normals and keeps a mean, at the same N; "
        "it has no error bar. Recentred(8).",
        "",
        "| model | N | batch | estimator s | bare s | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    images, _ = nets.digits(28)
    small = OnnxOracle(nets.to_onnx(nets.cnn(), (1, 28, 28)), target=3)
    cases = [
        (
            "EfficientNet-Lite0, 3x224x224",
            OnnxOracle(nets.efficientnet(), target=282),
            nets.chelsea(),
            64,
            (8, 16),
        ),
        ("CNN, 1x28x28", small, images[3], 4096, (32, 64, 128, 256)),
    ]
    for name, oracle, x, n, batches in cases:
        best, ratio, ours, loop = over_bare(oracle, x, n, batches, repeats)
        lines.append(f"| {name} | {n} | {best} | {ours:.3f} | {loop:.3f} | **{ratio:.3f}** |")
    return lines


def over_bare(
    oracle: mk.GradientOracle, x: np.ndarray, n: int, batches: tuple[int, ...], repeats: int
) -> tuple[int, float, float, float]:
    """The bare loop's best batch, the ratio at that batch, and the seconds of both."""
    sigma = 0.15 * float(np.ptp(x))
    kernel, budget = mk.Gaussian(sigma), mk.Evaluations(n)
    times = {}
    for batch in batches:
        bare(oracle, x, batch, batch, sigma, 0)
        began = time.perf_counter()
        bare(oracle, x, n, batch, sigma, 0)
        times[batch] = time.perf_counter() - began
    best = min(times, key=times.__getitem__)
    smooth = mk.Pathwise(kernel, block=best)
    return best, *ratios(
        lambda: smooth.estimate(oracle, x, budget=budget, rng=0),
        lambda: bare(oracle, x, n, best, sigma, 0),
        repeats,
    )


def memory() -> list[str]:
    """(b) Peak resident memory of a process of its own at three N."""
    lines = ["## (b) Peak memory", "", "EfficientNet-Lite0 at 112x112, a process each.", ""]
    lines += ["| N | peak MiB | over N = 16 |", "| --- | --- | --- |"]
    first = 0.0
    for n in (16, 256, 4096):
        answer = subprocess.run(
            [sys.executable, __file__, "--peak", str(n)], check=True, capture_output=True, text=True
        )
        peak = float(answer.stdout.split()[-1])
        first = first or peak
        lines.append(f"| {n} | {peak:.0f} | {peak / first:.3f} |")
    return lines


def peak(n: int) -> None:
    """Run one estimate and print this process's peak resident memory in MiB."""
    from efficientnet_lite0 import build, pretrained_weights
    from mollikit_onnx import OnnxOracle
    from photos import chelsea, model_input

    x = np.ascontiguousarray(model_input(chelsea())[:, ::2, ::2])
    oracle = OnnxOracle(build(pretrained_weights()), target=282)
    mk.Pathwise(mk.Gaussian(mk.OfRange(0.15)), block=8).estimate(oracle, x, budget=mk.Evaluations(n), rng=0)
    # Not getrusage: its peak survives exec, so that a child would report its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)


def speed(repeats: int) -> list[str]:
    """(c) One batch of gradients: OnnxOracle against PyTorch."""
    import nets
    import torch
    from mollikit_onnx import OnnxOracle

    lines = [
        "## (c) Gradients of EfficientNet-Lite0: OnnxOracle against PyTorch",
        "",
        "Batch 8, parameters frozen in PyTorch, two threads in each. Best PyTorch setting: BatchNorm "
        "folded, channels_last.",
        "",
        "| input | OnnxOracle ms a gradient | eager NCHW ms | best PyTorch ms | over eager | over best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    oracle = OnnxOracle(nets.efficientnet(), target=282)
    eager, best = nets.efficientnet_torch(folded=False), nets.efficientnet_torch(folded=True)
    best.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    for step in (1, 2):
        x = np.ascontiguousarray(nets.chelsea()[:, ::step, ::step])
        batch = (x + 0.3 * rng.standard_normal((8, *x.shape))).astype(np.float32)

        def by_torch(
            net: torch.nn.Module, form: torch.memory_format, batch: np.ndarray = batch
        ) -> np.ndarray:
            leaf = torch.from_numpy(batch).contiguous(memory_format=form).requires_grad_()
            return torch.autograd.grad(net(leaf)[:, 282].sum(), leaf)[0].numpy()

        def ours(batch: np.ndarray = batch) -> np.ndarray:
            return oracle.value_and_gradient(batch)[1]

        difference = np.abs(ours() - by_torch(eager, torch.contiguous_format)).max() / np.abs(ours()).max()
        print(f"{x.shape}: largest difference to PyTorch, of the largest gradient: {difference:.1e}")
        over_eager, a, b = ratios(ours, lambda: by_torch(eager, torch.contiguous_format), repeats)
        over_best, _, c = ratios(ours, lambda: by_torch(best, torch.channels_last), repeats)
        a, b, c = (1000 * t / 8 for t in (a, b, c))
        lines.append(
            f"| {x.shape[1:]} | {a:.1f} | {b:.1f} | {c:.1f} | **{over_eager:.2f}** | {over_best:.2f} |"
        )
    return lines


def variance(seeds: int) -> list[str]:
    """(d) MSE of independent points over that of each sampler, at equal evaluations."""
    import nets
    from mollikit_onnx import OnnxOracle

    lines = [
        "## (d) Variance reduction over independent points, equal evaluations",
        "",
        f"MSE(Independent) / MSE(sampler) to a truth of 2^17 evaluations, {seeds} seeds, noise 10% of the "
        "range; in brackets the standard error of the factor.",
        "",
        "| net | N | Recentred(8), the default | Antithetic | LatinHypercube(16) | Sobol |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    cases = [
        ("MLP, d = 64", nets.to_onnx(nets.mlp(), (64,)), nets.digits(8)[0][3].reshape(64)),
        ("CNN, d = 784", nets.to_onnx(nets.cnn(), (1, 28, 28)), nets.digits(28)[0][3]),
    ]
    samplers = [mk.Independent(), mk.Recentred(), mk.Antithetic(), mk.LatinHypercube(), mk.Sobol(16)]
    for name, model, x in cases:
        oracle = OnnxOracle(model, target=3)
        kernel = mk.Gaussian(mk.OfRange(0.1))
        truth = mk.Pathwise(kernel).estimate(oracle, x, budget=mk.Evaluations(1 << 17), rng=10**6).gradient
        for n in (64, 1024):
            errors = {}
            for sampler in samplers:
                smooth, budget = mk.Pathwise(kernel, sampler), mk.Evaluations(n)
                runs = (smooth.estimate(oracle, x, budget=budget, rng=k).gradient for k in range(seeds))
                errors[sampler] = np.array([np.square(run - truth).sum() for run in runs])
            base = errors[samplers[0]]
            cells = []
            for sampler in samplers[1:]:
                own = errors[sampler]
                factor = base.mean() / own.mean()
                spread = factor * np.hypot(base.std() / base.mean(), own.std() / own.mean()) / np.sqrt(seeds)
                cells.append(f"{factor:.2f} ({spread:.2f})")
            lines.append(f"| {name} | {n} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    return lines


def machine() -> list[str]:
    """What it ran on."""
    import onnxruntime
    import torch

    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return [
        f"{model}, {os.cpu_count()} cores (shared, noisy), no GPU; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, onnxruntime {onnxruntime.__version__} (CPU provider), "
        f"PyTorch {torch.__version__} with {torch.get_num_threads()} threads.",
    ]


def main() -> None:
    """Run everything and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--only", choices="abcd")
    arguments.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]
    if options.peak:
        peak(options.peak)
        return
    repeats, seeds = (3, 50) if options.quick else (9, 300)
    parts = {
        "a": lambda: overhead(repeats),
        "b": memory,
        "c": lambda: speed(3 * repeats),
        "d": lambda: variance(seeds),
    }
    lines = ["# Foundation: figures of one run", "", "`python benchmarks/foundation.py`", "", *machine()]
    for name, part in parts.items():
        if options.only in (None, name):
            lines += ["", *part()]
            print("\n".join(lines), end="\n\n", flush=True)
    if not (options.quick or options.only):
        (HERE / "foundation.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
