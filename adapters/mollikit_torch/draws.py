"""Points drawn by PyTorch's generator on a device: the samplers' and the kernels' laws, in tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from mollikit.engine.streams import Key, groups_per_stream
from mollikit.kernels import (
    Cauchy,
    Epanechnikov,
    Gaussian,
    HyperbolicSecant,
    Laplace,
    Logistic,
    Triangular,
    Uniform,
)
from mollikit.samplers import Antithetic, Independent, Recentred, Sampler

# Quantile functions of the standard forms for p in (0, 1/2]; the other half follows, as the kernels are even.
_LOWER_QUANTILES: dict[type[Any], Callable[[Tensor], Tensor]] = {
    Cauchy: lambda p: -1 / torch.tan(math.pi * p),
    Epanechnikov: lambda p: 2 * torch.sin((2 * torch.asin(torch.sqrt(p)) - math.pi / 2) / 3),
    HyperbolicSecant: lambda p: torch.log(torch.tan(math.pi / 2 * p)),
    Laplace: lambda p: torch.log(2 * p),
    Logistic: torch.logit,
    Triangular: lambda p: torch.sqrt(2 * p) - 1,
    Uniform: lambda p: 2 * p - 1,
}
KERNELS: tuple[type[Any], ...] = (Gaussian, *_LOWER_QUANTILES)
SAMPLERS = (Independent, Antithetic, Recentred)


def groups_of_normals(
    key: Key,
    sampler: Sampler,
    start: int,
    stop: int,
    dimension: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Standard normals (groups, points, dimension) of groups start .. stop - 1, each by its own address.

    The generator is seeded by a hash of the seed, the item and the stream, so that a group's points
    depend on its number alone.
    """
    size = sampler.group_size(dimension)
    per_stream = groups_per_stream(size * dimension)
    generator, parts = torch.Generator(device), []
    for stream in range(start // per_stream, (stop - 1) // per_stream + 1):
        generator.manual_seed(_seed(key, stream))
        fresh = size // 2 if isinstance(sampler, Antithetic) else size
        z = torch.randn((per_stream, fresh, dimension), generator=generator, device=device, dtype=dtype)
        first = stream * per_stream
        parts.append(_tied(sampler, z[max(start - first, 0) : stop - first]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def displacements(kernel: Any, z: Tensor) -> Tensor:
    """Turn normals into draws of a kernel's standard form, by the inverse CDF of the lower tail.

    Double precision and erfc keep the tail (torch.special.ndtr does not); z -> -z is an exact reflection.
    """
    if isinstance(kernel, Gaussian):
        return z
    p = torch.erfc(z.abs().double() / math.sqrt(2)) / 2
    return torch.copysign(_LOWER_QUANTILES[type(kernel)](p), z.double())


def _tied(sampler: Sampler, z: Tensor) -> Tensor:
    match sampler:
        case Antithetic():
            return torch.cat([z, -z], dim=1)
        case Recentred(points=points):
            return (z - z.mean(dim=1, keepdim=True)) * math.sqrt(points / (points - 1))
        case _:
            return z


def _seed(key: Key, stream: int) -> int:
    address = blake2b(struct.pack("<QQQ", key.seed, key.item, stream), digest_size=8).digest()
    return int.from_bytes(address, "little") >> 1  # torch takes 63 bits on every device
