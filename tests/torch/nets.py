"""Small nets for the oracle's tests, of fixed seeds; the ONNX ones of tests/onnx/models.py among them."""

from __future__ import annotations

import dataclasses
import math

import torch
from onnx import numpy_helper
from torch import nn

from tests.onnx import models


def _weights(model):
    return {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}


def seeded(net, seed=0):
    """Draw every parameter and buffer of floats anew, running variances positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator) / math.sqrt(max(tensor[0].numel(), 1))
                tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return net.eval()


def mlp(dtype=torch.float32):
    """x (n, 6) -> logits (n, 5): tests.onnx.models.mlp."""
    w = _weights(models.mlp())
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 5))
    with torch.no_grad():
        for layer, kernel, bias in ((net[0], "W1", "b1"), (net[2], "W2", "b2")):
            layer.weight.copy_(w[kernel].T)
            layer.bias.copy_(w[bias])
    return net.eval().to(dtype)


def cnn():
    """image (n, 2, 8, 8) -> logits (n, 4): tests.onnx.models.cnn."""
    w = _weights(models.cnn())
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        net[0].weight.copy_(w["K1"])
        net[0].bias.copy_(w["c1"])
        net[3].weight.copy_(w["K2"])
    return net.eval()


class Normalised(nn.Module):
    """image (n, 2, 8, 8) -> logits (n, 4), with BatchNorm, dropout and, in place, its first operation."""

    def __init__(self):
        super().__init__()
        self.first = nn.LeakyReLU(0.5, inplace=True)
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, image):
        features = self.drop(self.norm(self.conv(self.first(image))).sigmoid())
        features = nn.functional.avg_pool2d(features, 2)
        return self.head(features.flatten(1))


class Viewing(Normalised):
    """Takes contiguous features only: a view of several axes."""

    def forward(self, image):
        features = nn.functional.avg_pool2d(self.norm(self.conv(self.first(image))).sigmoid(), 2)
        return self.head(features.view(len(image), -1))


class TwoInputs(nn.Module):
    """tests.onnx.models.two_inputs, with the sum of the inputs as another output."""

    def __init__(self):
        super().__init__()
        (weight,) = _weights(models.two_inputs()).values()
        self.weight = nn.Parameter(weight)

    def forward(self, a, b, mask):
        return torch.tanh(a @ self.weight) * b + mask * b


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    features: torch.Tensor


class Tokens(nn.Module):
    """ids (n, 7) int64, mask (n, 7) bool -> an Answer, logits (n, 3)."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(11, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids, mask):
        features = torch.tanh(self.mix(self.embeddings(ids))) * mask[..., None]
        return Answer(self.head(features.sum(1)), features)


def tokens():
    return seeded(Tokens(), 3)


def normalised():
    return seeded(Normalised(), 1)


def viewing():
    return seeded(Viewing(), 1)
