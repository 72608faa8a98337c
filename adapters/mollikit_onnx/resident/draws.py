"""The samplers' and the kernels' laws, in graphs."""

from __future__ import annotations

from math import sqrt
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from mollikit.estimators.nested import Nested
from mollikit.kernels import Gaussian, Kernel
from mollikit.pointsets import Normals
from mollikit.samplers import Antithetic, Independent, Recentred, Sampler
from mollikit_onnx.graphs.tensor import Tensor

SAMPLERS = (Independent, Antithetic, Recentred)

# A kernel's draw as a function of |z| is tabulated up to here, beyond which 1.5e-23 of the normals lie, by
# polynomials of this degree on intervals of length 1 / _PER_UNIT.
_REACH, _PER_UNIT, _DEGREE = 10, 64, 5
# Asked of the table between its nodes, in probability: 1e18 draws would be needed to see it.
_U_TOLERANCE = 1e-9

_TABLES: WeakKeyDictionary[Kernel, NDArray[np.float64]] = WeakKeyDictionary()


def inner(sampler: Sampler) -> Sampler:
    """Return the sampler of the inputs where it is one under draws of the weights."""
    return sampler.sampler if isinstance(sampler, Nested) else sampler


def fresh(sampler: Sampler) -> int:
    """Points of a group that are drawn; the others follow from them."""
    size = sampler.group_size(1)
    return size // 2 if isinstance(sampler, Antithetic) else size


def tied(sampler: Sampler, z: Tensor) -> Tensor:
    """Return the points of groups (groups, group_size, d) from independent normals (groups, fresh, d)."""
    match sampler:
        case Antithetic():
            return z.op("Concat", -z, axis=1)
        case Recentred(points=points):
            return (z - z.op("ReduceMean", [1], keepdims=1)) * sqrt(points / (points - 1))
        case _:
            return z


def table(kernel: Kernel) -> NDArray[np.float64]:
    """Tabulate |t| over |z|, of draws t of a kernel's standard form and normals z: (degree + 1, intervals).

    A row holds one coefficient of every interval's polynomial in its own x from 0 to 1, the highest last.

    Raises
    ------
    ValueError
        The draws are no smooth function of the normals: the density has a gap or a cusp.
    """
    count = _REACH * _PER_UNIT
    nodes = (1 - np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE)) / 2
    between = (nodes[1:] + nodes[:-1]) / 2
    at = np.append(nodes, between)
    z = (np.arange(count)[:, None] + at) / _PER_UNIT
    values = np.abs(kernel.displacements(Normals(z)))
    known, expected = np.split(values, [len(nodes)], axis=1)
    # Through the left end exactly, so that small draws keep their relative accuracy.
    slopes = (known[:, 1:] - known[:, :1]) / nodes[1:]
    rest = np.linalg.solve(np.vander(nodes[1:], increasing=True), slopes.T)
    coefficients = np.concatenate([known[:, :1].T, rest])
    error = np.abs(np.polynomial.polynomial.polyval(between, coefficients) - expected)
    # An error of t is one of z by dt / dz, and of the probability by the normals' density.
    density, slope = np.exp(-(z[:, len(nodes) :] ** 2) / 2), (known[:, -1:] - known[:, :1]) * _PER_UNIT
    if not (error * density <= _U_TOLERANCE * slope + 1e-14 * expected).all():
        raise ValueError(f"the draws of {kernel!r} are no smooth function of normals")
    return coefficients


def table_of(kernel: Kernel) -> NDArray[np.float64]:
    """Return the `table` of a kernel, made once; the Gaussian needs none."""
    if isinstance(kernel, Gaussian):
        return np.zeros((0, 0))
    found = _TABLES.get(kernel)
    if found is None:
        found = _TABLES[kernel] = table(kernel)
    return found


def displaced(z: Tensor, coefficients: Tensor) -> Tensor:
    """Turn normals into draws of the kernel that a table tells of; z -> -z is an exact reflection."""
    last = float(np.nextafter(np.float32(_REACH * _PER_UNIT), np.float32(0)))
    scaled = (z.op("Abs") * float(_PER_UNIT)).op("Min", last)
    floor = scaled.op("Floor")
    x, interval = scaled - floor, floor.op("Cast", to=TensorProto.INT64)
    rows = [coefficients.op("Gather", z.graph.constant(np.array(k, np.int64))) for k in range(_DEGREE + 1)]
    t = rows[-1].op("Gather", interval)
    for row in rows[-2::-1]:
        t = t * x + row.op("Gather", interval)
    return (-t).where(z.op("Less", 0.0), t)
