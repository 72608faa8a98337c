"""Samplers: variance reduction over independent points at equal evaluations, and the cost of drawing.

    OPENBLAS_NUM_THREADS=1 python benchmarks/samplers.py            # writes benchmarks/samplers.md
    OPENBLAS_NUM_THREADS=1 python benchmarks/samplers.py --quick    # fewer evaluations, prints only

Groups are independent, so the error of N evaluations is that of N / g groups of g points: the factor of
a sampler depends on its group size alone, and is had from the spread of group means. Schemes that learn from
a pilot are run at a fixed number of evaluations, all of them charged. That each is unbiased is checked
against the mean over independent points.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import torch
from foundation import machine
from sklearn.datasets import load_iris

import mollikit as mk
from mollikit.engine.streams import Key

KERNEL = mk.Gaussian(mk.OfRange(0.1))
RUNS = 8
Scheme = mk.Sampler | mk.Subspace | mk.Adaptive
DIGITS = (3, 17, 40)


@dataclass(frozen=True)
class TorchLogit:
    """Gradients of one logit of a PyTorch net."""

    net: torch.nn.Module
    target: int

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        leaf = torch.from_numpy(points).requires_grad_()
        values = self.net(leaf)[:, self.target]
        return values.detach().numpy(), torch.autograd.grad(values.sum(), leaf)[0].numpy()


@dataclass(frozen=True)
class Case:
    """A net at some of its inputs, each with its own class's logit, and evaluations of each sampler there."""

    name: str
    inputs: tuple[tuple[mk.GradientOracle, np.ndarray], ...]
    evaluations: int
    per_estimate: int = 1024


@dataclass(frozen=True)
class Spread:
    """What some estimates say: variance per evaluation (one for each run), their mean, its squared error."""

    variances: np.ndarray
    mean: np.ndarray
    squared_error: float

    @property
    def relative_error_squared(self) -> float:
        """Of the mean of the variances."""
        return float((self.variances.std(ddof=1) / self.variances.mean()) ** 2 / len(self.variances))


def spread(case: Case, oracle: mk.GradientOracle, x: np.ndarray, scheme: Scheme, evaluations: int) -> Spread:
    runs: list[mk.Estimate]
    if isinstance(scheme, mk.Sampler):
        budget = mk.Evaluations(evaluations // RUNS)
        block = max(min(256, (1 << 20) // x.size), scheme.group_size(x.size))
        smooth = mk.Pathwise(KERNEL, scheme, block=block)
        runs = [smooth.estimate(oracle, x, budget=budget, rng=k) for k in range(RUNS)]
    else:
        count = max(RUNS // 2, evaluations // case.per_estimate)
        budget = mk.Evaluations(case.per_estimate)
        runs = [scheme.estimate(oracle, x, budget=budget, rng=k) for k in range(count)]
    squares = np.array([np.square(run.standard_error).sum() for run in runs])
    counts = np.array([run.n_evaluations for run in runs])
    return Spread(
        squares * counts, np.mean([run.gradient for run in runs], axis=0), squares.mean() / len(runs)
    )


def row(case: Case, plain: list[Spread], scheme: Scheme) -> str:
    """Geometric mean over the inputs of the factor, its standard error, its range; deviation of the means."""
    each, errors, deviations = [], [], []
    for (oracle, x), base in zip(case.inputs, plain, strict=True):
        own = spread(case, oracle, x, scheme, case.evaluations)
        each.append(base.variances.mean() / own.variances.mean())
        errors.append(own.relative_error_squared + base.relative_error_squared)
        deviations.append(np.square(own.mean - base.mean).sum() / (own.squared_error + base.squared_error))
    factor = float(np.exp(np.mean(np.log(each))))
    error = factor * np.sqrt(np.sum(errors)) / len(errors)
    name, size = told(scheme, case)
    line = (
        f"| `{name}` | {size} | **{factor:.2f}** ({error:.2f}) | "
        f"{min(each):.2f} - {max(each):.2f} | {np.mean(deviations):.2f} |"
    )
    print(line, flush=True)
    return line


def told(scheme: Scheme, case: Case) -> tuple[str, str]:
    """What a scheme is called, and its group size; of one with a pilot, the evaluations of an estimate."""
    if isinstance(scheme, mk.Sampler):
        return repr(scheme), str(scheme.group_size(case.inputs[0][1].size))
    return f"{type(scheme).__name__}(pilot={scheme.pilot})", f"N = {case.per_estimate}"


def factors(case: Case, samplers: list[Scheme]) -> list[str]:
    print(case.name, flush=True)
    plain = [spread(case, oracle, x, mk.Independent(), 2 * case.evaluations) for oracle, x in case.inputs]
    return [
        "",
        f"## {case.name}",
        "",
        "| sampler | group | factor | over the inputs | deviation |",
        "| --- | --- | --- | --- | --- |",
        *[row(case, plain, sampler) for sampler in samplers],
    ]


def drawing(repeats: int) -> list[str]:
    """Microseconds to draw a point of 784 coordinates, beside a gradient of the CNN; interleaved, medians."""
    kernels = [mk.Gaussian(1), mk.Uniform(1), mk.Logistic(1), mk.Laplace(1), mk.Cauchy(1), mk.StudentT(1)]
    samplers: list[mk.Sampler] = [
        mk.Independent(),
        mk.Antithetic(),
        mk.Recentred(8),
        mk.LatinHypercube(16),
        mk.LatinHypercube(20),
        mk.Sobol(16),
        mk.Orthogonal(16),
        mk.Orthogonal(512),
        mk.LocalBlocks(32),
        mk.WhitenedBlocks(32),
        mk.Lattice(),
    ]
    oracle, x = digits(nets.cnn(), 28, (1, 28, 28))[0]
    batch = np.tile(x, (256, 1, 1, 1))

    def draw(sampler: mk.Sampler, kernel: mk.Kernel, start: int) -> int:
        groups = max(1, 256 // sampler.group_size(784))
        points = Key(0).groups(
            sampler, start * groups, (start + 1) * groups, (1, 28, 28), np.dtype(np.float32), kernel.view
        )
        return len(kernel.displacements(points)) * sampler.group_size(784)

    tasks = {(s, k): (lambda i, s=s, k=k: draw(s, k, i)) for s in samplers for k in kernels}
    tasks["gradient"] = lambda i: len(oracle.value_and_gradient(batch)[0])
    times: dict[object, list[float]] = {name: [] for name in tasks}
    for i in range(repeats + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            count = task(i)
            times[name].append(1e6 * (time.perf_counter() - began) / count)
    cost = {name: float(np.median(values[1:])) for name, values in times.items()}
    lines = [
        "",
        "## Drawing",
        "",
        "Microseconds a point of 1 x 28 x 28 coordinates in float32, one thread, medians; a gradient of the "
        f"CNN there takes {cost['gradient']:.0f} with {torch.get_num_threads()} threads, in batches of 256.",
        "",
        "| sampler | " + " | ".join(type(k).__name__ for k in kernels) + " |",
        "| --- " * (len(kernels) + 1) + "|",
    ]
    lines += [f"| `{s}` | " + " | ".join(f"{cost[s, k]:.1f}" for k in kernels) + " |" for s in samplers]
    return lines


def iris(activation: type[torch.nn.Module]) -> tuple[tuple[TorchLogit, np.ndarray], ...]:
    """A trained multilayer perceptron on the four measurements of irises, and a flower of each kind."""
    data = load_iris()
    flowers = ((data.data - data.data.mean(0)) / data.data.std(0)).astype(np.float32)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 32), activation(), torch.nn.Linear(32, 32), activation(), torch.nn.Linear(32, 3)
    )
    x, y = torch.from_numpy(flowers), torch.from_numpy(data.target)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval().requires_grad_(False)
    return tuple((TorchLogit(net, int(data.target[k])), flowers[k]) for k in (20, 77, 120))


def coloured() -> tuple[tuple[TorchLogit, np.ndarray], ...]:
    """A trained residual net on coloured digits, 3 x 32 x 32, and two of them."""
    images, labels = nets.coloured_digits()
    net = nets.resnet()
    return tuple((TorchLogit(net, int(labels[k])), images[k]) for k in DIGITS[:2])


def cat() -> tuple[tuple[mk.GradientOracle, np.ndarray], ...]:
    """EfficientNet-Lite0 in ONNX Runtime, its logit of a tiger cat, at a photo of 224 x 224."""
    from mollikit_onnx import OnnxOracle

    return ((OnnxOracle(nets.efficientnet(), target=282), nets.chelsea()),)


def digits(
    net: torch.nn.Module, side: int, shape: tuple[int, ...]
) -> tuple[tuple[TorchLogit, np.ndarray], ...]:
    images, labels = nets.digits(side)
    return tuple((TorchLogit(net, int(labels[k])), images[k].reshape(shape)) for k in DIGITS)


CONCLUSIONS = """
## What was hoped for, and what was not reached

Hoped for were 25 at d = 4 and 15 at d = 64 with N = 1024, 5 at d = 784 and 3 at d = 3072. Of points alone
only Sobol nets at d = 4 with tanh pass. With ReLU the gradient jumps, and what point sets cancel is the
linear part and the terms of few coordinates; the rest is the model's. A pilot's directions double what a
net of that size gains with ReLU at d = 4, gain a third at d = 64 (no more than `Orthogonal(64)` does) and
nothing with tanh at d = 4; from d = 784 on they gain no more than the pilot costs, and tiles of the grid
(`WhitenedBlocks`) are best.

With knowledge of the model three of the four are reached without bias: `GateVariates`, everything charged,
has 56 at d = 4 (geometric mean; 8 at the worst of three inputs), 27 at d = 64 and 7.0 at d = 784, in a run of
its own, `gate_variates.md`. At d = 3072 it has 1.8, and 3 is not reached: the first of seven layers of
gates is all whose mean is known at a price worth paying.
""".splitlines()
SUBSPACE, ADAPTIVE = mk.Subspace(KERNEL), mk.Adaptive(KERNEL)
LOW: list[Scheme] = [
    mk.Antithetic(),
    mk.Recentred(8),
    mk.LatinHypercube(64),
    mk.Sobol(64),
    mk.Sobol(128),
    mk.Sobol(1024),
    mk.Halton(1024),
    mk.Lattice(128),
    mk.Lattice(1024),
    SUBSPACE,
    ADAPTIVE,
]
MIDDLE: list[Scheme] = [
    mk.Antithetic(),
    mk.Recentred(8),
    mk.Recentred(64),
    mk.LatinHypercube(64),
    mk.Sobol(16),
    mk.Sobol(128),
    mk.Sobol(1024),
    mk.Lattice(1024),
    mk.Orthogonal(32),
    mk.Orthogonal(64),
    SUBSPACE,
    ADAPTIVE,
]
IMAGE: list[Scheme] = [
    mk.Antithetic(),
    mk.Recentred(8),
    mk.LatinHypercube(64),
    mk.Sobol(16),
    mk.Orthogonal(16),
    mk.LocalBlocks(32),
    mk.WhitenedBlocks(32),
    mk.WhitenedBlocks(64, tile=(7, 7)),
    SUBSPACE,
    ADAPTIVE,
]
LARGE: list[Scheme] = [
    mk.Antithetic(),
    mk.Recentred(8),
    mk.LatinHypercube(16),
    mk.WhitenedBlocks(32, tile=(4, 4)),
    mk.Subspace(KERNEL, pilot=16),
    mk.Adaptive(KERNEL, pilot=32),
]


def main() -> None:
    """Run everything and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    share = 4 if quick else 1
    lines = [
        "# Samplers: figures of one run",
        "",
        "`OPENBLAS_NUM_THREADS=1 python benchmarks/samplers.py`",
        "",
        *machine(),
        "",
        "Gaussian noise of 10% of the range; the logit of an input's own class, at three inputs "
        "(two of the CNN and the residual net, one of EfficientNet). The "
        "factor is MSE(Independent) / MSE(sampler) at equal evaluations, from the spread of independent "
        "groups (of `Subspace` and `Adaptive`, of estimates of N evaluations, those of the pilot among "
        "them): its geometric mean over the inputs, in brackets its standard error, then its least and its "
        "greatest value over the inputs. An error bar needs several groups: N evaluations in "
        "groups of N have none. The deviation is the squared distance from the mean over independent points "
        "over what both error bars expect: about 1 where a sampler is unbiased.",
        *factors(Case("MLP with ReLU on irises, d = 4", iris(torch.nn.ReLU), (1 << 16) // share), LOW),
        *factors(Case("MLP with tanh on irises, d = 4", iris(torch.nn.Tanh), (1 << 16) // share), LOW),
        *factors(Case("MLP on digits, d = 64", digits(nets.mlp(), 8, (64,)), (1 << 16) // share), MIDDLE),
        *factors(
            Case("CNN on digits, d = 784", digits(nets.cnn(), 28, (1, 28, 28))[:2], (1 << 13) // share), IMAGE
        ),
        *factors(Case("Residual net, d = 3072", coloured(), (1 << 11) // share, 512), LARGE),
        *factors(Case("EfficientNet-Lite0, d = 150528", cat(), 256 // share, 64), LARGE[:3]),
        *CONCLUSIONS,
        *drawing(3 if quick else 7),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not quick:
        (Path(__file__).parent / "samplers.md").write_text(text)


if __name__ == "__main__":
    main()
