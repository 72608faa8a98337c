"""Classifiers of images by convolutions, widths and depths to choose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, **options) -> nn.Sequential:
    """Convolution that keeps the size, batch normalization, ReLU."""
    pads = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, padding=options.pop("padding", pads), bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        layers = (
            [
                *convolution(inputs, width, 1),
                *convolution(width, width, stride=stride),
                nn.Conv2d(width, outputs, 1, bias=False),
            ]
            if bottleneck
            else [
                *convolution(inputs, width, stride=stride),
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
            ]
        )
        self.main = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.skip = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.skip(x))


class ResNet(nn.Module):
    """He et al. 2016, "Deep Residual Learning for Image Recognition"."""

    def __init__(
        self, width: int = 8, depths: Sequence[int] = (1, 2), bottleneck: bool = False, classes: int = 5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [*convolution(3, width, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        channels = width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                layers.append(Residual(channels, width << stage, stride, bottleneck))
                channels = (width << stage) * (4 if bottleneck else 1)
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class VGG(nn.Module):
    """Simonyan and Zisserman 2015; "M" stands for a pool."""

    def __init__(
        self,
        plan: Sequence[int | str] = (8, "M", 12, 12, "M"),
        hidden: int = 16,
        classes: int = 5,
        side: int = 16,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in plan:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
                side //= 2
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
                channels = item
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(channels * side * side, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(image), 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            *convolution(inputs, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.main(x)], 1)


class DenseNet(nn.Module):
    """Huang et al. 2017, "Densely Connected Convolutional Networks"."""

    def __init__(
        self, width: int = 8, growth: int = 4, depths: Sequence[int] = (2, 2), classes: int = 5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [*convolution(3, width, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        channels = width
        for stage, depth in enumerate(depths):
            if stage:
                halved = channels // 2
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, halved, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                channels = halved
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.features(image), 1).flatten(1))


class InceptionBlock(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                convolution(inputs, width, 1),
                nn.Sequential(convolution(inputs, width, 1), convolution(width, width, 5)),
                nn.Sequential(
                    convolution(inputs, width, 1),
                    convolution(width, width, (1, 7)),
                    convolution(width, width, (7, 1)),
                ),
                nn.Sequential(nn.AvgPool2d(3, 1, 1), convolution(inputs, width, 1)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(inputs, width, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class InceptionReduction(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.strided = convolution(inputs, width, 3, stride=2, padding=0)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(x), self.pool(x)], 1)


class Inception(nn.Module):
    """Szegedy et al. 2016, "Rethinking the Inception Architecture": parallel branches, factorized kernels."""

    def __init__(self, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(3, 2 * width, stride=2, padding=0),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            InceptionBlock(2 * width, width),
            InceptionReduction(5 * width, width),
            InceptionBlock(6 * width, width),
        )
        self.head = nn.Linear(5 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of (batch, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.pointwise = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.spatial(x).permute(0, 2, 3, 1))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Liu et al. 2022, "A ConvNet for the 2020s"."""

    def __init__(
        self, widths: Sequence[int] = (8, 12), depths: Sequence[int] = (1, 1), classes: int = 5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6)]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                layers += [
                    ChannelNorm(widths[stage - 1], eps=1e-6),
                    nn.Conv2d(widths[stage - 1], width, 2, 2),
                ]
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], classes))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((-2, -1)))
