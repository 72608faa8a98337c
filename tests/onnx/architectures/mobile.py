"""Classifiers of images by depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution, batch normalization, and the activation if there is one."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    def __init__(
        self, width: int, squeezed: int, activation: Callable[[], nn.Module], gate: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            activation(),
            nn.Conv2d(squeezed, width, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter by a depthwise, project by a 1x1; the shape decides on a skip."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        activation: Callable[[], nn.Module],
        excitation: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [convolution(inputs, wide, activation=activation)] if expansion > 1 else []
        layers.append(convolution(wide, wide, kernel, stride, wide, activation))
        layers += [excitation(wide)] if excitation else []
        self.main = nn.Sequential(*layers, convolution(wide, outputs))
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.skips else self.main(x)


class _Mobile(nn.Module):
    def __init__(self, features: Sequence[nn.Module], head: Sequence[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


# (expansion, outputs, repeats, stride) of table 2 of the paper.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    plan: Sequence[tuple[int, int, int, int]] = ((1, 8, 1, 1), (3, 8, 2, 2)),
    stem: int = 8,
    last: int = 16,
    classes: int = 5,
) -> nn.Module:
    """Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"."""
    layers: list[nn.Module] = [convolution(3, stem, 3, 2, activation=nn.ReLU6)]
    channels = stem
    for expansion, outputs, repeats, stride in plan:
        for k in range(repeats):
            layers.append(InvertedResidual(channels, outputs, expansion, 3, 1 if k else stride, nn.ReLU6))
            channels = outputs
    layers.append(convolution(channels, last, activation=nn.ReLU6))
    return _Mobile(layers, [nn.Dropout(0.2), nn.Linear(last, classes)])


# (kernel, expansion, outputs, excitation, hard swish, stride); the expansions of the paper rounded.
MOBILENET_V3_LARGE = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 1),
    (5, 3, 40, True, False, 2),
    (5, 3, 40, True, False, 1),
    (5, 3, 40, True, False, 1),
    (3, 6, 80, False, True, 2),
    (3, 2, 80, False, True, 1),
    (3, 2, 80, False, True, 1),
    (3, 2, 80, False, True, 1),
    (3, 6, 112, True, True, 1),
    (3, 6, 112, True, True, 1),
    (5, 6, 160, True, True, 2),
    (5, 6, 160, True, True, 1),
    (5, 6, 160, True, True, 1),
)


def mobilenet_v3(
    plan: Sequence[tuple[int, int, int, bool, bool, int]] = (
        (3, 1, 8, False, False, 1),
        (5, 3, 12, True, True, 2),
        (5, 2, 12, True, True, 1),
    ),
    stem: int = 8,
    last: int = 16,
    classes: int = 5,
) -> nn.Module:
    """Howard et al. 2019, "Searching for MobileNetV3"."""
    layers: list[nn.Module] = [convolution(3, stem, 3, 2, activation=nn.Hardswish)]
    channels = stem
    for kernel, expansion, outputs, excited, hard, stride in plan:
        activation = nn.Hardswish if hard else nn.ReLU
        layers.append(
            InvertedResidual(
                channels, outputs, expansion, kernel, stride, activation, _hard if excited else None
            )
        )
        channels = outputs
    layers.append(convolution(channels, 6 * channels, activation=nn.Hardswish))
    return _Mobile(
        layers, [nn.Linear(6 * channels, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, classes)]
    )


def _hard(width: int) -> nn.Module:
    return SqueezeExcitation(width, max(4, width // 4), nn.ReLU, nn.Hardsigmoid)


def efficientnet(
    plan: Sequence[tuple[int, int, int, int]] = ((3, 1, 8, 1), (3, 4, 12, 2), (5, 4, 12, 1)),
    stem: int = 8,
    last: int = 16,
    classes: int = 5,
) -> nn.Module:
    """Tan and Le 2019, "EfficientNet"; the plan is of (kernel, expansion, outputs, stride)."""
    layers: list[nn.Module] = [convolution(3, stem, 3, 2, activation=nn.SiLU)]
    channels = stem
    for kernel, expansion, outputs, stride in plan:
        layers.append(InvertedResidual(channels, outputs, expansion, kernel, stride, nn.SiLU, _swish))
        channels = outputs
    layers.append(convolution(channels, last, activation=nn.SiLU))
    return _Mobile(layers, [nn.Dropout(0.2), nn.Linear(last, classes)])


def _swish(width: int) -> nn.Module:
    return SqueezeExcitation(width, max(2, width // 16), nn.SiLU, nn.Sigmoid)


def _shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return (
        x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
    )


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        own = inputs if stride > 1 else half
        self.stride = stride
        self.main = nn.Sequential(
            convolution(own, half, activation=nn.ReLU),
            convolution(half, half, 3, stride, half),
            convolution(half, half, activation=nn.ReLU),
        )
        self.side = nn.Sequential(
            convolution(inputs, inputs, 3, stride, inputs), convolution(inputs, half, activation=nn.ReLU)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            return _shuffled(torch.cat([self.side(x), self.main(x)], 1))
        kept, changed = x.chunk(2, 1)
        return _shuffled(torch.cat([kept, self.main(changed)], 1))


def shufflenet(width: int = 8, repeats: int = 2, classes: int = 5) -> nn.Module:
    """Ma et al. 2018, "ShuffleNet V2"."""
    layers: list[nn.Module] = [convolution(3, width, 3, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    layers.append(ShuffleUnit(width, 2 * width, 2))
    layers += [ShuffleUnit(2 * width, 2 * width, 1) for _ in range(repeats)]
    return _Mobile(layers, [nn.Linear(2 * width, classes)])
