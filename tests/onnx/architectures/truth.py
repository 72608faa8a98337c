"""PyTorch's autograd in float64, and inputs away from the kinks."""

from __future__ import annotations

import numpy as np
import torch

from tests.onnx.architectures.catalogue import Architecture, Arrays

# The relative error asked for, and how far rounding to float32 may move what a layer sees, tenfold.
TOLERANCE = 1e-5
_NEAR = 1e-6


def points_and_gradients(
    architecture: Architecture, batch: int, more: int = 0
) -> tuple[Arrays, Arrays, Arrays]:
    """Inputs, cotangents by output and gradients by input, or at "embedded".

    Where an activation has a kink, float32 and float64 may stand on different sides of it, and both are
    right. So an input counts only if the gradient in float64 stays within the tolerance at points 1e-6 of the
    input's size away; the first of some seeds for which it does is taken.
    """
    # ONNX holds the weights in float32; from_torch.double() keeps their values.
    net = architecture.net().double()
    for seed in range(20):
        inputs = architecture.draw(seed, batch, more)
        rng = np.random.default_rng(seed)
        exact, cotangents = _gradients(net, architecture, inputs, rng)
        near = {
            name: x * (1 + _NEAR * rng.uniform(-1, 1, x.shape)) if x.dtype == np.float32 else x
            for name, x in inputs.items()
        }
        moved, _ = _gradients(net, architecture, near, rng, cotangents)
        if all(relative_error(moved[name], exact[name]) <= TOLERANCE for name in exact):
            return inputs, cotangents, exact
    raise AssertionError("every input drawn is at a kink")


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Of all elements together, in the Euclidean norm."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def _gradients(
    net: torch.nn.Module,
    architecture: Architecture,
    inputs: Arrays,
    rng: np.random.Generator,
    cotangents: Arrays | None = None,
) -> tuple[Arrays, Arrays]:
    arguments = [
        torch.tensor(x).double() if x.dtype.kind == "f" else torch.tensor(x) for x in inputs.values()
    ]
    if architecture.embedded:
        arguments[0] = net.words(arguments[0]).detach()
        if cotangents is not None:
            arguments[0] = arguments[0] * (
                1 + _NEAR * torch.from_numpy(rng.uniform(-1, 1, arguments[0].shape))
            )
        names = ["embedded"]
        leaves = [arguments[0].requires_grad_()]
        outputs = net.behind(*arguments)
    else:
        names = [name for name, x in inputs.items() if x.dtype.kind == "f"]
        leaves = [x.requires_grad_() for x in arguments if x.is_floating_point()]
        outputs = net(*arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if cotangents is None:
        drawn = [rng.standard_normal(y.shape, np.float32) for y in outputs]
        cotangents = dict(zip(architecture.outputs, drawn, strict=True))
    seeds = [torch.tensor(g).double() for g in cotangents.values()]
    gradients = torch.autograd.grad(outputs, leaves, seeds)
    return {name: g.numpy() for name, g in zip(names, gradients, strict=True)}, cotangents
