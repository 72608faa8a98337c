"""Whole nets that onnxruntime quantises statically, against PyTorch's fake quantisation, straight through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from mollikit_onnx import pruned, vjp
from onnx import ModelProto, helper, numpy_helper
from onnxruntime import quantization

from tests.onnx.gradient_checks import run_onnxruntime

pytest.importorskip("torch", reason="PyTorch writes and differentiates the architectures")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need it")

import torch
from torch.nn import functional

from tests.onnx.architectures.catalogue import ARCHITECTURES
from tests.onnx.architectures.exporters import by_torchscript
from tests.onnx.architectures.truth import TOLERANCE, relative_error


class _Images(quantization.CalibrationDataReader):
    def __init__(self, name: str) -> None:
        drawn = (ARCHITECTURES[name].draw(seed, batch=8) for seed in range(4))
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(drawn)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def imitated(model: ModelProto, image: torch.Tensor) -> torch.Tensor:
    """The same net in PyTorch, a pair of QuantizeLinear and DequantizeLinear being one fake quantisation."""
    constants = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    tensors = {"image": image}

    def read(name: str) -> torch.Tensor:
        return tensors[name] if name in tensors else torch.tensor(constants[name]).double()

    for node in model.graph.node:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        y, x = node.output[0], next(iter(node.input), "")
        match node.op_type:
            case "Constant":
                constants[y] = numpy_helper.to_array(given["value"])
            case "QuantizeLinear":
                scale, zero = (constants[name] for name in node.input[1:])
                ends = np.iinfo(zero.dtype)
                tensors[y] = torch.fake_quantize_per_tensor_affine(
                    tensors[x], float(scale), int(zero), int(ends.min), int(ends.max)
                )
            case "DequantizeLinear" if x in tensors:
                tensors[y] = tensors[x]
            case "DequantizeLinear":
                shape = [1] * constants[x].ndim
                if constants[node.input[1]].size > 1:
                    shape[given.get("axis", 1)] = -1
                scale, zero = (constants[name].astype(float).reshape(shape) for name in node.input[1:])
                tensors[y] = torch.tensor((constants[x] - zero) * scale)
            case "Conv":
                begin, end = given["pads"][:2], given["pads"][2:]
                assert begin == end
                bias = read(node.input[2]) if len(node.input) > 2 else None
                tensors[y] = functional.conv2d(
                    tensors[x], read(node.input[1]), bias, given["strides"], begin, 1, given["group"]
                )
            case "Gemm":
                assert given["transB"]
                tensors[y] = functional.linear(tensors[x], read(node.input[1]), read(node.input[2]))
            case "Relu":
                tensors[y] = tensors[x].relu()
            case "Clip":
                low, high = (float(read(name)) for name in node.input[1:])
                tensors[y] = tensors[x].clamp(low, high)
            case "Add":
                tensors[y] = tensors[x] + read(node.input[1])
            case "MaxPool" if given["kernel_shape"] == given["strides"]:
                # Codes are often equal, and equal ones share the cotangent, as they do in amax.
                windows = tensors[x].unfold(2, given["strides"][0], given["strides"][0])
                tensors[y] = windows.unfold(3, given["strides"][1], given["strides"][1]).amax((-1, -2))
            case "MaxPool":
                tensors[y] = functional.max_pool2d(
                    tensors[x], given["kernel_shape"], given["strides"], given["pads"][0]
                )
            case "GlobalAveragePool":
                tensors[y] = tensors[x].mean((2, 3), keepdim=True)
            case "Flatten":
                tensors[y] = tensors[x].flatten(1)
            case other:
                raise NotImplementedError(other)
    return tensors["logits"]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ["resnet", "vgg", "mobilenet-v2"])
def test_the_gradient_is_that_of_fake_quantisation(name, per_channel, tmp_path) -> None:
    """By the network's own scales, per tensor or per channel."""
    onnx.save(by_torchscript(name, 17), tmp_path / "floats.onnx")
    quantization.quantize_static(
        str(tmp_path / "floats.onnx"), str(tmp_path / "q.onnx"), _Images(name), per_channel=per_channel
    )
    model = onnx.load(tmp_path / "q.onnx")
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= {node.op_type for node in model.graph.node}
    image, g, exact = _point(name, model)
    gradient = pruned(vjp(model, ["image"], ["logits"], straight_through=True), ["image.gradient"])
    (got,) = run_onnxruntime(gradient, {"image": image, "logits.cotangent": g})
    assert relative_error(got, exact) <= TOLERANCE


def _point(name: str, model: ModelProto) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, a cotangent and the gradient, the first where a change of 1e-6 rounds no code the other way."""
    for seed in range(20):
        image = ARCHITECTURES[name].draw(100 + seed, batch=2)["image"]
        rng = np.random.default_rng(seed)
        g = rng.standard_normal(imitated(model, torch.tensor(image).double()).shape, np.float32)
        exact = _gradient(model, image, g)
        near = [image * (1 + 1e-6 * rng.uniform(-1, 1, image.shape)) for _ in range(3)]
        if all(relative_error(_gradient(model, moved, g), exact) <= TOLERANCE for moved in near):
            return image, g, exact
    raise AssertionError("every image drawn is at a kink")


def _gradient(model: ModelProto, image: np.ndarray, g: np.ndarray) -> np.ndarray:
    leaf = torch.tensor(image).double().requires_grad_()
    imitated(model, leaf).backward(torch.tensor(g).double())
    return leaf.grad.numpy()
