"""Masks of zeros and ones by HardSigmoid.

onnxruntime's layout optimizer (NCHWc on the CPU) keeps Mul, Add, Sigmoid and HardSigmoid between
convolutions in the layout of these, and takes every tensor out of it for Cast, Greater, Less or Where. Even
without that, one pass of HardSigmoid costs less than the casts to bool and back.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Tensor

# onnxruntime's blocks of channels hold 8 or 16.
_BLOCK = 16


def above(y: Tensor, bound: float) -> Tensor:
    """Return 1 where y > bound, else 0, for y that is nowhere below it.

    HardSigmoid is min(max(a y + b, 0), 1). With a = 1 / (distance of the bound to the next number) and
    b = -a bound, both exact as a is a power of two, it is 0 at the bound and 1 from the next number on.
    At 0 that a is too large for a float: with the largest one, the subnormal numbers alone get less than 1.
    """
    if y.dtype != TensorProto.FLOAT:
        # Of HardSigmoid onnxruntime has kernels for float32 everywhere, for others not.
        more = y.op("Cast", to=TensorProto.BOOL) if bound == 0 else y.op("Greater", bound)
        return more.op("Cast", to=y.dtype)
    if bound == 0:
        return y.op("HardSigmoid", alpha=float(np.finfo(np.float32).max), beta=0.0)
    return _ramp(y, bound, np.inf)


def below(y: Tensor, bound: float) -> Tensor:
    """Return 1 where y < bound, else 0, for y that is nowhere above it."""
    if y.dtype != TensorProto.FLOAT or bound == 0:
        return y.op("Less", bound).op("Cast", to=y.dtype)
    return _ramp(y, bound, -np.inf)


def between(y: Tensor, high: float) -> Tensor:
    """Return 1 where 0 < y < high, else 0, for y that is nowhere outside.

    That is ``above`` times ``below``, in one pass less where onnxruntime makes the BatchNormalization a
    convolution and takes the sum and the HardSigmoid into it. With w the largest power of two for which
    w high <= 1, the sum z = [y > 0] - w y is 0 at y = 0, c = 1 - w high at the other end and at least
    c + 2^-24 between them, all without rounding: the ramp from 0 at c to 1 at c + 2^-24 is the mask.
    """
    if not _blocked(y) or not 2.0**-100 < high < 2.0**100:
        return above(y, 0.0) * below(y, high)
    weight = 2.0 ** -math.ceil(math.log2(high))
    summed = times(y, -weight) + above(y, 0.0)
    return summed.op("HardSigmoid", alpha=2.0**24, beta=-(2.0**24) * (1 - weight * high))


def times(x: Tensor, factor: float) -> Tensor:
    """Return x times a number, by a BatchNormalization where onnxruntime makes that a convolution."""
    if not _blocked(x):
        return x * factor
    channels = x.shape[1] if x.shape is not None else 0
    scale, none, one = (np.full(int(channels or 0), value, np.float32) for value in (factor, 0.0, 1.0))
    return x.op("BatchNormalization", scale, none, none, one, epsilon=0.0)


def _blocked(x: Tensor) -> bool:
    channels = x.shape[1] if x.shape is not None and len(x.shape) == 4 else None
    return isinstance(channels, int) and channels % _BLOCK == 0 and x.dtype == TensorProto.FLOAT


def one_minus(y: Tensor) -> Tensor:
    """Return 1 - y for y between 0 and 1."""
    return 1 - y if y.dtype != TensorProto.FLOAT else y.op("HardSigmoid", alpha=-1.0, beta=1.0)


def _ramp(y: Tensor, bound: float, towards: float) -> Tensor:
    at = np.float32(bound)
    slope = 1 / (float(np.nextafter(at, np.float32(towards))) - float(at))
    if abs(slope) > float(np.finfo(np.float32).max):
        return y.op("Greater" if towards > 0 else "Less", bound).op("Cast", to=y.dtype)
    return y.op("HardSigmoid", alpha=slope, beta=-slope * float(at))
