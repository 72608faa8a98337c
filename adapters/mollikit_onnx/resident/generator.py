"""Random numbers inside a graph, by a counter: uniforms and normals that no host has drawn."""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly, chebinterpolate
from onnx import TensorProto

from mollikit.engine.streams import Key
from mollikit_onnx.graphs.tensor import Tensor

_HALF = 1 << 32  # what a word is shifted by to come to its other half
_DIGITS = range(1, 16)


def key_of(key: Key) -> int:
    """Return the generator's key for a seed and an item: odd, of 64 bits.

    Its sixteen hexadecimal digits are twice eight different ones other than zero, as the generator's author
    asks of keys; a hash of the address chooses them among 2^55.
    """
    drawn = int.from_bytes(blake2b(struct.pack("<QQ", key.seed, key.item)).digest(), "little")
    number = 0
    for _ in range(2):
        left = list(_DIGITS)
        for place in range(8):
            # The last digit comes first, and is odd.
            choice = left if place else left[::2]
            drawn, at = divmod(drawn, len(choice))
            left.remove(digit := choice[at])
            number |= digit << 4 * place
        number <<= 32
    return number >> 32


def words(counters: Tensor, key: Tensor) -> Tensor:
    """Return one random number of 32 bits for each counter; all are of type uint64.

    A square modulo 2^64 mixes upwards, and turning it by half its length brings its best bits down to be
    squared again. Multiplication, addition and division do it all: these have kernels on every provider.

    Source: Widynski 2020, "Squares: a fast counter-based RNG", arXiv 2004.06278, the form of four rounds.
    """
    x = y = counters * key
    z = y + key
    for added in (y, z, y):
        x = x * x + added
        x = x / _HALF + x * _HALF
    return (x * x + z) / _HALF


def normals(first: Tensor, count: Tensor, key: Tensor, groups: Tensor, dtype: int) -> Tensor:
    """Return standard normals (groups, count / groups), from as many counters that begin with ``first``.

    Each group's first half of words gives radii and its second half angles (Box and Muller 1958, "A note on
    the generation of random normal deviates"). A uniform is (k + 1/2) 2^-32, so that none is larger
    than 6.8.

    Parameters
    ----------
    first : Tensor
        uint64, (1,).
    count : Tensor
        int64, a scalar: an even number for each group.
    key : Tensor
        uint64, (1,), as `key_of` gives it.
    groups : Tensor
        int64, (1,).
    dtype : int
        FLOAT or DOUBLE.
    """
    numbers = words(count.counted().op("Cast", to=TensorProto.UINT64) + first, key)
    halves = numbers.reshaped(groups, 2, -1)
    uniforms = (halves.op("Cast", to=dtype) + 0.5) * (1 / _HALF)
    u, v = uniforms.graph.ops(2, "Split", uniforms, axis=1, num_outputs=2)
    radii = (u.op("Log") * -2.0).op("Sqrt")
    pairs = [radii * part for part in circle(v * 2.0 - 1.0)]
    return pairs[0].op("Concat", pairs[1], axis=1).reshaped(groups, -1)


def circle(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos(pi t) and sin(pi t) for t from -1 to 1, to two units in the last place of 1.

    They are polynomials in t^2, as ONNX Runtime's CUDA provider has sines and cosines up to opset 21 alone.
    """
    x = t * t * 2.0 - 1.0
    return _polynomial(_cosine, x), _polynomial(_sine_over, x) * t


def _cosine(x: Any) -> Any:
    return np.cos(np.pi * np.sqrt((x + 1) / 2))


def _sine_over(x: Any) -> Any:
    return np.pi * np.sinc(np.sqrt((x + 1) / 2))


def _polynomial(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Interpolate an entire function between -1 and 1, to the precision of x."""
    degree = 10 if x.dtype == TensorProto.DOUBLE else 7
    *rest, first = (float(c) for c in cheb2poly(chebinterpolate(function, degree)))
    value = x * first
    for coefficient in rest[:0:-1]:
        value = (value + coefficient) * x
    return value + rest[0]
