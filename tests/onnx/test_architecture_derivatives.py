"""Gradients of weights, and Hessians times vectors, of whole architectures against PyTorch's autograd."""

import numpy as np
import onnx
import pytest
from mollikit_onnx import pruned, vjp

from tests.onnx.gradient_checks import run_onnxruntime

pytest.importorskip("torch", reason="PyTorch writes and differentiates the architectures")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need it")

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.onnx.architectures.catalogue import ARCHITECTURES
from tests.onnx.architectures.exporters import by_torchscript
from tests.onnx.architectures.truth import TOLERANCE, points_and_gradients, relative_error


@pytest.mark.parametrize("name", ["vgg", "convnext", "vit", "unet-transposed", "diffusion"])
def test_weights(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model = by_torchscript(name, 17)
    net = architecture.net().double()
    parameters = dict(net.named_parameters())
    # The exporter keeps the names of those that it neither transposes nor folds.
    kept = [weight.name for weight in model.graph.initializer if weight.name in parameters]
    assert len(kept) >= 2
    gradient = pruned(vjp(model, kept, architecture.outputs), [f"{n}.gradient" for n in kept])
    inputs, cotangents, _ = points_and_gradients(architecture, batch=2)
    got = run_onnxruntime(gradient, inputs | {f"{n}.cotangent": g for n, g in cotangents.items()})
    leaves = [parameters[n].requires_grad_() for n in kept]
    outputs = net(*(torch.tensor(x).double() for x in inputs.values()))
    seeds = [torch.tensor(g).double() for g in cotangents.values()]
    expected = torch.autograd.grad([outputs], leaves, seeds)
    for own, ours, theirs in zip(kept, got, expected, strict=True):
        assert relative_error(ours, theirs.numpy()) <= TOLERANCE, own


@pytest.mark.parametrize("name", ["convnext", "vit", "swin", "diffusion"])
def test_hessians_times_vectors(name: str) -> None:
    """Of nets without kinks: the gradient of <v, gradient>."""
    architecture = ARCHITECTURES[name]
    first = pruned(vjp(by_torchscript(name, 17), ["image"], architecture.outputs), ["image.gradient"])
    second = vjp(_renamed(first, "image.gradient", "slope"), ["image"], ["slope"])
    inputs, cotangents, _ = points_and_gradients(architecture, batch=2)
    v = np.random.default_rng(1).standard_normal(inputs["image"].shape).astype(np.float32)
    feeds = inputs | {f"{n}.cotangent": g for n, g in cotangents.items()} | {"slope.cotangent": v}
    (got,) = run_onnxruntime(pruned(second, ["image.gradient"]), feeds)
    image, *others = (torch.tensor(x).double() for x in inputs.values())
    (seed,) = (torch.tensor(g).double() for g in cotangents.values())
    net = architecture.net().double()
    # The other kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        _, expected = torch.autograd.functional.vhp(
            lambda x: (net(x, *others) * seed).sum(), image, torch.tensor(v).double()
        )
    assert relative_error(got, expected.numpy()) <= TOLERANCE


def _renamed(model: onnx.ModelProto, before: str, after: str) -> onnx.ModelProto:
    for node in model.graph.node:
        node.output[:] = [after if name == before else name for name in node.output]
    for value in model.graph.output:
        value.name = after if value.name == before else value.name
    return model
