"""Gate variates: variance reduction over independent gradients at equal cost, everything charged.

    OPENBLAS_NUM_THREADS=1 python benchmarks/gate_variates.py     # writes benchmarks/gate_variates.md

The nets and inputs of samplers.py, on ONNX Runtime. The factor is the variance of independent gradients over
N, over the variance of estimates of N evaluations between seeds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import nets
import numpy as np
import onnx
import samplers
import torch
from foundation import machine
from mollikit_onnx import GateVariates, OnnxOracle

import mollikit as mk

N = 1024
Case = tuple[OnnxOracle, np.ndarray]


def on_onnx(inputs: Sequence[tuple[samplers.TorchLogit, np.ndarray]]) -> list[Case]:
    net, shape = inputs[0][0].net, inputs[0][1].shape
    model = exported(net, shape) if isinstance(net[3], nets.Residual) else nets.to_onnx(net, shape)
    return [(OnnxOracle(model, target=logit.target), x) for logit, x in inputs]


def exported(net: torch.nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    rows, file = torch.export.Dim("N", min=1, max=4096), io.BytesIO()
    program = torch.onnx.export(
        net, (torch.zeros(2, *shape),), dynamo=True, dynamic_shapes=({0: rows},), input_names=["input"]
    )
    program.save(file)
    return onnx.load_model_from_string(file.getvalue())


def row(name: str, cases: Sequence[Case], sampler: mk.Sampler, seeds: int, plain: int) -> str:
    scheme = GateVariates(mk.Pathwise(samplers.KERNEL, sampler))
    factors, deviations, stated, slower = [], [], [], []
    for oracle, x in cases:
        began = time.process_time()
        base = mk.Pathwise(samplers.KERNEL, mk.Independent()).estimate(
            oracle, x, budget=mk.Evaluations(plain), rng=(7, x.size)
        )
        each = (time.process_time() - began) / plain
        began = time.process_time()
        found = [scheme.estimate(oracle, x, budget=mk.Evaluations(N), rng=k) for k in range(seeds)]
        slower.append((time.process_time() - began) / seeds / (each * N))
        gradients = np.array([estimate.gradient for estimate in found])
        own, error = gradients.var(axis=0, ddof=1).sum(), np.square(base.standard_error).sum()
        factors.append(error * plain / N / own)
        stated.append(np.mean([np.square(e.standard_error).sum() for e in found]) / own)
        deviations.append(np.square(gradients.mean(axis=0) - base.gradient).sum() / (own / seeds + error))
    about = found[0].provenance
    line = (
        f"| {name} | `{sampler!r}` | **{np.exp(np.mean(np.log(factors))):.2f}** | {min(factors):.2f} - "
        f"{max(factors):.2f} | {len(about['layers'])} | {about['before']:.0f} | {about['price']:.2f} | "
        f"{np.mean(stated):.2f} | {np.mean(deviations):.2f} | {np.mean(slower):.1f} |"
    )
    print(line, flush=True)
    return line


def main() -> None:
    """Run everything and write the table."""
    eight = mk.Recentred(8)
    digits = on_onnx(samplers.digits(nets.cnn(), 28, (1, 28, 28))[:2])
    coloured = on_onnx(samplers.coloured())
    perceptron = on_onnx(samplers.digits(nets.mlp(), 8, (64,)))
    lines = [
        row("MLP with ReLU on irises, d = 4", on_onnx(samplers.iris(torch.nn.ReLU)), eight, 48, 1 << 16),
        row("MLP on digits, d = 64", perceptron, eight, 24, 1 << 16),
        row("CNN on digits, d = 784", digits, eight, 12, 1 << 12),
        row("CNN on digits, d = 784", digits, mk.WhitenedBlocks(32), 12, 1 << 12),
        row("Residual net, d = 3072", coloured, eight, 8, 1 << 11),
        row("Residual net, d = 3072", coloured, mk.WhitenedBlocks(32, tile=(4, 4)), 8, 1 << 11),
    ]
    head = [
        "# Gate variates: figures of one run",
        "",
        "`OPENBLAS_NUM_THREADS=1 python benchmarks/gate_variates.py`",
        "",
        *machine(),
        "",
        f"`GateVariates` of {N} evaluations, at the inputs of samplers.md; the factor is "
        "MSE(independent gradients) / MSE(scheme) at equal cost: its geometric mean over the inputs and its "
        "range. Charged are 64 forward passes, the forms, the known mean (together: before) and each point "
        "of the shallow network (price). Stated is the mean squared standard error over the variance between "
        "seeds, the deviation that of samplers.md (one draw for each input), time the processor time over "
        "that of as many gradients on ONNX Runtime, drawing included.",
        "",
        "| net | points | factor | over the inputs | layers | before | price | stated | deviation | time |",
        "| --- " * 10 + "|",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    (Path(__file__).parent / "gate_variates.md").write_text(text)


if __name__ == "__main__":
    main()
