"""Nets that answer with pictures: segmentation, detection, denoising."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.onnx.architectures.convolutional import convolution


class UNet(nn.Module):
    """Ronneberger et al. 2015, "U-Net"; upwards by transposed convolutions, or by interpolation."""

    def __init__(self, up: str = "transposed", width: int = 6, classes: int = 2) -> None:
        super().__init__()
        self.first = nn.Sequential(convolution(3, width), convolution(width, width))
        self.second = nn.Sequential(nn.MaxPool2d(2), convolution(width, 2 * width))
        self.bottom = nn.Sequential(nn.MaxPool2d(2), convolution(2 * width, 4 * width))
        self.up = nn.ModuleList(self._up(up, k * width) for k in (4, 2))
        self.join = nn.ModuleList(convolution(k * width, k * width // 2) for k in (4, 2))
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _up(kind: str, inputs: int) -> nn.Module:
        if kind == "transposed":
            return nn.ConvTranspose2d(inputs, inputs // 2, 2, 2)
        options = {} if kind == "nearest" else {"align_corners": kind == "aligned"}
        mode = "nearest" if kind == "nearest" else "bilinear"
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode=mode, **options), nn.Conv2d(inputs, inputs // 2, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image)
        second = self.second(first)
        x = self.bottom(second)
        for up, join, skip in zip(self.up, self.join, (second, first), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Cross(nn.Module):
    """Half of the channels go by the side of the others' layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = smooth(inputs, outputs, 1)
        self.main = nn.Sequential(smooth(half, half), smooth(half, half))
        self.leave = smooth(outputs + half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat([kept, changed, changed + self.main(changed)], 1))


def smooth(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class Yolo(nn.Module):
    """A one-stage detector with a pyramid of two scales; boxes from distributions over distances.

    Redmon et al. 2016, "You Only Look Once"; Li et al. 2020, "Generalized Focal Loss".
    """

    def __init__(self, width: int = 8, bins: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem = nn.Sequential(smooth(3, width, stride=2), smooth(width, width, stride=2))
        self.fine = Cross(width, width)
        self.down = smooth(width, 2 * width, stride=2)
        self.squeeze = smooth(2 * width, width, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.coarse = smooth(4 * width, width, 1)
        self.merge = Cross(2 * width, width)
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 * bins + classes, 1) for _ in range(2))
        self.register_buffer("distances", torch.arange(bins, dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(self.stem(image))
        pooled = [self.squeeze(self.down(fine))]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        coarse = self.coarse(torch.cat(pooled, 1))
        fine = self.merge(
            torch.cat([functional.interpolate(coarse, scale_factor=2.0, mode="nearest"), fine], 1)
        )
        parts = [
            self._decoded(head(x), stride)
            for head, x, stride in zip(self.heads, (fine, coarse), (4, 8), strict=True)
        ]
        return torch.cat(parts, 1)

    def _decoded(self, x: Tensor, stride: int) -> Tensor:
        """Boxes (centre, size) in pixels and scores, one row for each place."""
        batch, _, height, width = x.shape
        boxes, scores = x.flatten(2).transpose(1, 2).split([4 * self.bins, self.classes], -1)
        sides = (boxes.reshape(batch, height * width, 4, self.bins).softmax(-1) * self.distances).sum(-1)
        rows = torch.arange(height, device=x.device, dtype=x.dtype) + 0.5
        columns = torch.arange(width, device=x.device, dtype=x.dtype) + 0.5
        centre = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2)
        low, high = centre - sides[..., :2], centre + sides[..., 2:]
        return torch.cat([(low + high) / 2 * stride, (high - low) * stride, scores.sigmoid()], -1)


class DiffusionBlock(nn.Module):
    """Residual block with a time embedding, then attention, as in Ho et al. 2020 (DDPM's UNet)."""

    def __init__(self, width: int = 8, groups: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 2 * width))
        self.first = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.norm = nn.GroupNorm(groups, width)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.around = nn.GroupNorm(groups, width)
        self.join, self.out = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        half = self.width // 2
        speeds = torch.exp(
            -math.log(10000.0) / half * torch.arange(half, device=time.device, dtype=time.dtype)
        )
        angles = time[:, None] * speeds
        scale, shift = self.time(torch.cat([angles.sin(), angles.cos()], -1))[:, :, None, None].chunk(2, 1)
        x = self.enter(image)
        x = x + self.second(self.norm(self.first(x)) * (1 + scale) + shift)
        flat = self.around(x).flatten(2)
        query, key, value = self.join(flat).unflatten(1, (3, self.heads, -1)).transpose(-2, -1).unbind(1)
        y = functional.scaled_dot_product_attention(query, key, value)
        return self.leave(x + self.out(y.transpose(-2, -1).flatten(1, 2)).reshape(x.shape))
