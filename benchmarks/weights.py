"""Which design is best where weights are smoothed: how models are drawn, and how many inputs share one.

    python benchmarks/weights.py

The variance of one evaluation is |standard error|^2 times the evaluations, over all coordinates, relative to
independent models, with one independent input each where inputs are smoothed too. Times are of one core. A
design of which the budget holds fewer than 8 groups is left out. Writes weights.md.
"""

from __future__ import annotations

import time
from pathlib import Path

import nets
import numpy as np
import torch
from mollikit_torch import TorchOracle

import mollikit as mk

INPUTS = mk.Gaussian(mk.OfRange(0.15))
LAWS = {level: mk.Gaussian(mk.OfMagnitude(level)) for level in (0.05, 0.2)}
MODELS = {"independent": mk.Independent(), "antithetic": mk.Antithetic(), "recentred (8)": mk.Recentred(8)}


def designs():
    """Name, options and evaluations of a group."""
    for name, models in MODELS.items():
        yield f"weights, {name}", {"weights_sampler": models}, models.group_size(1)
    plain = {"inputs": INPUTS, "sampler": mk.Independent(), "weights_sampler": mk.Independent()}
    yield "both, independent, 1 input", {**plain, "inputs_per_model": 1}, 1
    for name, models in MODELS.items():
        for count in (8, 32):
            options = {"inputs": INPUTS, "weights_sampler": models, "inputs_per_model": count}
            yield f"both, {name}, {count} recentred inputs", options, count * models.group_size(1)


def subjects():
    images, _ = nets.digits(8)
    yield "MLP, d = 64", nets.mlp(), images[0].reshape(64), 1 << 11, LAWS
    images, _ = nets.digits(28)
    yield "CNN, d = 784", nets.cnn(), images[0], 1 << 10, LAWS
    photo = nets.chelsea()[:, 56:168, 56:168].copy()
    yield "EfficientNet-Lite0, d = 37632", nets.efficientnet_torch(folded=False), photo, 128, [0.05]


def measured(oracle, x, level, budget, options):
    smooth = mk.Pathwise(weights=LAWS[level], **options)
    began = time.process_time()
    estimate = smooth.estimate(oracle, x, budget=mk.Evaluations(budget), rng=0)
    n = estimate.n_evaluations
    return np.square(estimate.standard_error).sum() * n, (time.process_time() - began) / n, estimate


def main():
    torch.set_num_threads(1)
    lines = [
        "| net | weight noise | design | variance of an evaluation | ms an evaluation | variance x time |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, net, x, budget, levels in subjects():
        for level in levels:
            oracle = TorchOracle(net, target="top").anchored(x)
            first = {}
            for design, options, group in designs():
                if group > budget // 8:
                    continue  # too few groups to tell their spread
                variance, seconds, estimate = measured(oracle, x, level, budget, options)
                kind = design.split(",")[0]
                one, took = first.setdefault(kind, (variance, seconds))
                lines.append(
                    f"| {name} | {level} | {design} | {variance / one:.3f} | {1e3 * seconds:.2f} | "
                    f"{variance * seconds / (one * took):.3f} |"
                )
                print(lines[-1], f"error {estimate.relative_error:.3g}", flush=True)
    Path(__file__).with_suffix(".md").write_text(__doc__.split("\n\n")[2] + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
