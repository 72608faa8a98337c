"""CPU seconds of K separate estimates over those of one with K targets, as minima of several turns.

Run as ``python benchmarks/several_targets.py [model.onnx]``, where the model takes (m, 3, 224, 224).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import mollikit as mk

TURNS = 3
SMOOTH = mk.Pathwise(mk.Gaussian(0.3), block=8)
BUDGET = mk.Evaluations(16)


def seconds(run: Callable[[], Any]) -> float:
    """What a run takes of the processor, all threads together: others on the machine matter less so."""
    began = time.process_time()
    run()
    return time.process_time() - began


def ratio(oracle: Any, x: np.ndarray[Any, Any], count: int) -> tuple[float, bool]:
    """K separate estimates over one with K targets, and whether their bits are the same."""
    targets = list(range(count))

    def apart() -> list[mk.Estimate]:
        return [SMOOTH.estimate(oracle, x, held={"target": t}, budget=BUDGET, rng=0) for t in targets]

    def together() -> list[mk.Estimate]:
        return SMOOTH.estimate_targets(oracle, x, targets, budget=BUDGET, rng=0)

    same = all(np.array_equal(a.gradient, b.gradient) for a, b in zip(apart(), together(), strict=True))
    turns = [(seconds(apart), seconds(together)) for _ in range(TURNS)]
    return min(a for a, _ in turns) / min(b for _, b in turns), same


def main(path: str | None) -> None:
    """Print a table."""
    import torch
    from mollikit_onnx import OnnxOracle
    from mollikit_torch import TorchOracle
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 100)).eval()
    x = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    cases: dict[str, tuple[Any, Any]] = {"PyTorch, a convolutional net": (TorchOracle(net), x)}
    if path is not None:
        photo = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
        cases[f"ONNX, {path}"] = OnnxOracle(path, target="top"), photo
    for name, (oracle, inputs) in cases.items():
        for count in (2, 5):
            found, same = ratio(oracle, inputs, count)
            print(f"{name}: K = {count}: {found:.2f}, {'the same bits' if same else 'to rounding'}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
