"""Black boxes: mean squared error of the estimators from values, at equal evaluations.

    OPENBLAS_NUM_THREADS=1 python benchmarks/black_boxes.py            # writes benchmarks/black_boxes.md
    OPENBLAS_NUM_THREADS=1 python benchmarks/black_boxes.py --quick    # fewer repeats, prints only
    OPENBLAS_NUM_THREADS=1 python benchmarks/black_boxes.py --large    # the residual net alone, prints only

Each estimate from N = 2 d evaluations is one group, so that the spread M2 / (G - 1) of G groups is the
mean squared error of one of them, for estimators that are unbiased; whether they are is checked against the
mean of gradients (Pathwise), which the estimators from values never see.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import torch
from foundation import machine

import mollikit as mk

TARGET = 3
DIGITS = (3, 17, 40)


@dataclass(frozen=True)
class TorchLogit:
    """One logit of a PyTorch net, as values and (for the truth alone) gradients."""

    net: torch.nn.Module

    def value(self, points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.net(torch.from_numpy(points))[:, TARGET].numpy()

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        leaf = torch.from_numpy(points).requires_grad_()
        values = self.net(leaf)[:, TARGET]
        return values.detach().numpy(), torch.autograd.grad(values.sum(), leaf)[0].numpy()


@dataclass(frozen=True)
class Row:
    """An estimator at N = 2 d: relative mean squared error, its spread, the deviation, seconds a group."""

    name: str
    error: float
    spread: float
    deviation: float
    seconds: float


def measured(name: str, estimator: mk.Estimator, case: Case, groups: int) -> Row:
    """Run it for this many groups of 2 d evaluations, in eight runs, which give the spread."""
    d = case.x.size
    began = time.perf_counter()
    runs = [
        estimator.estimate(case.oracle, case.x, budget=mk.Evaluations(2 * d * (groups // 8)), rng=k)
        for k in range(8)
    ]
    seconds = (time.perf_counter() - began) / groups
    power = np.square(case.truth.gradient).sum()
    # |se|^2 of a run is the variance of its mean of N = 2 d (groups / 8) evaluations.
    errors = [np.square(run.standard_error).sum() * (groups // 8) / power for run in runs]
    mean = np.mean([run.gradient for run in runs], axis=0)
    variance = np.sum([np.square(run.standard_error) for run in runs], axis=0) / 64
    variance = variance + np.square(case.truth.standard_error)
    deviation = np.square(mean - case.truth.gradient).sum() / variance.sum()
    return Row(name, float(np.mean(errors)), float(np.std(errors, ddof=1) / np.sqrt(8)), deviation, seconds)


@dataclass(frozen=True)
class Case:
    """A net at an input, with its smoothed gradient from gradients."""

    name: str
    oracle: TorchLogit
    x: np.ndarray
    truth: mk.Estimate


def case(name: str, net: torch.nn.Module, x: np.ndarray, gradients: int = 1 << 16) -> Case:
    oracle = TorchLogit(net)
    truth = mk.Pathwise(KERNEL).estimate(oracle, x, budget=mk.Evaluations(gradients), rng=10**6)
    return Case(name, oracle, x, truth)


KERNEL = mk.Gaussian(mk.OfRange(0.1))


def table(of: Case, groups: int, only: tuple[str, ...] = ("",)) -> list[str]:
    d = of.x.size
    estimators = {
        "`ScoreFunction`, baseline of all N points": mk.ScoreFunction(
            KERNEL, baseline=2 * d, allow_poor=True
        ),
        "`ScoreFunction`, groups of 16 (the default)": mk.ScoreFunction(KERNEL, allow_poor=True),
        "`ScoreFunction`, antithetic pairs": mk.ScoreFunction(KERNEL, mk.Antithetic(), allow_poor=True),
        "`Secant`, frames": mk.Secant(KERNEL, allow_poor=True),
    }
    rows = []
    for name, estimator in estimators.items():
        if not name.endswith(only):
            continue
        rows.append(measured(name, estimator, of, groups))
        print(rows[-1], flush=True)
    first = rows[0]
    lines = [
        "",
        f"## {of.name}, N = {2 * d}",
        "",
        "| estimator | relative RMSE | relative MSE | MSE of the first over it | deviation | ms for N |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        gain = first.error / row.error
        spread = gain * np.hypot(first.spread / first.error, row.spread / row.error)
        lines.append(
            f"| {row.name} | {np.sqrt(row.error):.4f} | {row.error:.5f} ({row.spread:.5f}) | "
            f"**{gain:.1f}** ({spread:.1f}) | {row.deviation:.2f} | {1000 * row.seconds:.1f} |"
        )
    return lines


def large() -> list[str]:
    """The residual net, where a frame takes 6144 evaluations."""
    x = nets.coloured_digits()[0][DIGITS[0]]
    of = case(f"Residual net, d = 3072, digit {DIGITS[0]}", nets.resnet(), x, 1 << 13)
    return table(of, 16, ("of all N points", "frames"))


def main() -> None:
    """Run everything and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--large", action="store_true")
    asked = arguments.parse_args()
    if asked.large:
        print("\n".join(large()))
        return
    quick = asked.quick
    lines = [
        "# Black boxes: figures of one run",
        "",
        "`OPENBLAS_NUM_THREADS=1 python benchmarks/black_boxes.py`",
        "",
        *machine(),
        "",
        "The logit of class 3 at three digits, Gaussian noise of 10% of the range, N = 2 d evaluations: one "
        "frame of `Secant`. The relative MSE is E|estimate - truth|^2 / |truth|^2; in brackets standard "
        "errors. The deviation is the squared distance of the mean over all runs from the mean of 2^16 "
        "gradients, over what the error bars of both expect: about 1 where an estimator is unbiased.",
    ]
    for k in DIGITS[:1] if quick else DIGITS:
        x = nets.digits(8)[0][k].reshape(64)
        lines += table(case(f"MLP, d = 64, digit {k}", nets.mlp(), x), 256 if quick else 2048)
    for k in DIGITS[:1] if quick else DIGITS:
        x = nets.digits(28)[0][k]
        lines += table(case(f"CNN, d = 784, digit {k}", nets.cnn(), x), 32 if quick else 64)
    if not quick:
        lines += large()
    text = "\n".join(lines) + "\n"
    print(text)
    if not quick:
        (Path(__file__).parent / "black_boxes.md").write_text(text)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
