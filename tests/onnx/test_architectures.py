"""Whole architectures, as PyTorch's two exporters write them down, against PyTorch's autograd."""

import numpy as np
import pytest
from mollikit_onnx import pruned, vjp
from onnx import ModelProto

from tests.onnx.gradient_checks import run_onnxruntime

pytest.importorskip("torch", reason="PyTorch writes and differentiates the architectures")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need it")

from tests.onnx.architectures.catalogue import ARCHITECTURES
from tests.onnx.architectures.exporters import by_dynamo, by_torchscript
from tests.onnx.architectures.truth import TOLERANCE, points_and_gradients, relative_error

# The newest that PyTorch 2.13 writes: a request for 26 it stamps as 18.
NEWEST = 25
OPSETS = (11, 13, 14, 17, 18)
# The exporter that captures programs takes seconds for each: those on which its graphs differ most.
CAPTURED = ("efficientnet", "vit", "swin", "unet-bilinear", "diffusion", "gpt", "speech-gru")
# PyTorch's capture declares the frames of this net's output fixed, though its nodes compute them.
FIXED = ("speech-lstm",)


def _recorded(*, full: bool) -> list:
    """All opsets in the long sweep, else two of them in turn."""
    cases = []
    for k, (name, architecture) in enumerate(ARCHITECTURES.items()):
        opsets = [o for o in OPSETS if architecture.torchscript and o >= architecture.torchscript]
        chosen = {opset for j, opset in enumerate(opsets) if (j + k) % 3 == 0}
        cases += [_case(name, opset) for opset in opsets if (opset in chosen) != full]
    return cases


def _captured(*, full: bool) -> list:
    chosen = {(name, NEWEST) for name in CAPTURED}
    every = {(name, opset) for name in ARCHITECTURES for opset in (18, NEWEST)}
    return [_case(*pair) for pair in sorted(every - chosen if full else chosen)]


def _case(name: str, opset: int):
    return pytest.param(name, opset, id=f"{name}-{opset}")


@pytest.mark.parametrize(("name", "opset"), _recorded(full=False))
def test_recorded(name: str, opset: int) -> None:
    check(name, by_torchscript(name, opset))


@pytest.mark.full
@pytest.mark.parametrize(("name", "opset"), _recorded(full=True))
def test_recorded_at_the_other_opsets(name: str, opset: int) -> None:
    check(name, by_torchscript(name, opset))


@pytest.mark.parametrize(("name", "opset"), _captured(full=False))
def test_captured(name: str, opset: int) -> None:
    check(name, by_dynamo(name, opset))


@pytest.mark.full
@pytest.mark.parametrize(("name", "opset"), _captured(full=True))
def test_captured_the_others(name: str, opset: int) -> None:
    check(name, by_dynamo(name, opset), fixed=name in FIXED)


def check(name: str, model: ModelProto, *, fixed: bool = False) -> None:
    """At a batch and, unless they are fixed, at sizes other than those of the export."""
    architecture = ARCHITECTURES[name]
    before = model.SerializeToString()
    wrt = {"embedded": _embedded(model)} if architecture.embedded else {n: n for n in _floats(model)}
    gradient = pruned(
        vjp(model, list(wrt.values()), architecture.outputs), [f"{n}.gradient" for n in wrt.values()]
    )
    assert model.SerializeToString() == before
    for batch, more in [(2, 0)] + [(1, 8)] * (bool(architecture.dynamic) and not fixed):
        inputs, cotangents, exact = points_and_gradients(architecture, batch, more)
        feeds = inputs | {f"{n}.cotangent": g for n, g in cotangents.items()}
        for key, got in zip(wrt, run_onnxruntime(gradient, feeds), strict=True):
            assert got.shape == exact[key].shape
            assert got.dtype == np.float32
            assert relative_error(got, exact[key]) <= TOLERANCE, key


def _floats(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.input if value.type.tensor_type.elem_type == 1]


def _embedded(model: ModelProto) -> str:
    (node,) = [n for n in model.graph.node if n.op_type == "Gather" and n.input[0].endswith("words.weight")]
    return str(node.output[0])
