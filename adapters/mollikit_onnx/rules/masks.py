"""Masks of zeros and ones by HardSigmoid.

onnxruntime's layout optimizer (NCHWc on the CPU) keeps Mul, Add, Sigmoid and HardSigmoid between
convolutions in the layout of these, and takes every tensor out of it for Cast, Greater, Less or Where. Even
without that, one pass of HardSigmoid costs less than the casts to bool and back.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.tensor import Tensor


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


def one_minus(y: Tensor) -> Tensor:
    """Return 1 - y for y between 0 and 1."""
    return 1 - y if y.dtype != TensorProto.FLOAT else y.op("HardSigmoid", alpha=-1.0, beta=1.0)


def _ramp(y: Tensor, bound: float, towards: float) -> Tensor:
    at = np.float32(bound)
    slope = 1 / (float(np.nextafter(at, np.float32(towards))) - float(at))
    if abs(slope) > float(np.finfo(np.float32).max):
        return y.op("Greater" if towards > 0 else "Less", bound).op("Cast", to=y.dtype)
    return y.op("HardSigmoid", alpha=slope, beta=-slope * float(at))
