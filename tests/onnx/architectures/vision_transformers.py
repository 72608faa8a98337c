"""Classifiers of images by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.onnx.architectures.mobile import InvertedResidual


class Attention(nn.Module):
    """Self-attention over the last but one axis; relative positions and a mask are added to its scores."""

    def __init__(self, width: int, heads: int, places: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.join = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, places, places) / 2) if places else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = self.join(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.bias is None:
            y = functional.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5 + self.bias
            y = (scores if mask is None else scores + mask).softmax(-1) @ value
        return self.out(y.transpose(1, 2).flatten(2))


def perceptron(width: int, ratio: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, places: int = 0) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = Attention(width, heads, places)
        self.after = nn.LayerNorm(width)
        self.perceptron = perceptron(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.before(x), mask)
        return x + self.perceptron(self.after(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"."""

    def __init__(
        self,
        width: int = 16,
        heads: int = 2,
        depth: int = 2,
        patch: int = 4,
        side: int = 16,
        classes: int = 5,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) / 4)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def windows(x: Tensor, size: int) -> Tensor:
    """(batch, height, width, c) to (batch * windows, size * size, c)."""
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)


def joined(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `windows`."""
    x = x.reshape(-1, height // size, width // size, size, size, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


class SwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.block = Block(width, heads, window * window)
        regions = torch.zeros(1, side, side, 1)
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for k, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
            regions[:, rows, columns] = k
        own = windows(regions, window)
        mask = torch.where(own != own.transpose(1, 2), -100.0, 0.0) if shift else torch.zeros(1, 1, 1)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        parts = windows(x, self.window)
        mask = (
            self.mask.repeat(parts.shape[0] // self.mask.shape[0], 1, 1).unsqueeze(1) if self.shift else None
        )
        x = joined(self.block(parts, mask), self.window, height, width)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class PatchMerging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows"."""

    def __init__(
        self, width: int = 8, heads: int = 2, side: int = 16, window: int = 4, classes: int = 5
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, 2)
        side //= 2
        self.blocks = nn.Sequential(
            SwinBlock(width, heads, side, window, 0),
            SwinBlock(width, heads, side, window, window // 2),
            PatchMerging(width),
            SwinBlock(2 * width, heads, side // 2, window, 0),
        )
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.patches(image).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


class MaxViTBlock(nn.Module):
    """Attention within blocks, then over a grid of places far apart, behind an inverted residual."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.convolution = InvertedResidual(width, width, 2, 3, 1, nn.GELU)
        self.near = Block(width, heads, window * window)
        self.far = Block(width, heads, window * window)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x).permute(0, 2, 3, 1)
        _, height, width, channels = x.shape
        x = joined(self.near(windows(x, self.window)), self.window, height, width)
        p, rows, columns = self.window, height // self.window, width // self.window
        grid = x.reshape(-1, p, rows, p, columns, channels).permute(0, 2, 4, 1, 3, 5)
        y = self.far(grid.reshape(-1, p * p, channels)).reshape(-1, rows, columns, p, p, channels)
        return y.permute(0, 3, 1, 4, 2, 5).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class MaxViT(nn.Module):
    """Tu et al. 2022, "MaxViT: Multi-Axis Vision Transformer"."""

    def __init__(self, width: int = 8, heads: int = 2, window: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.GELU())
        self.block = MaxViTBlock(width, heads, window)
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.block(self.stem(image)).mean((2, 3)))
