"""The objects that the words of a command line stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial, reduce
from operator import or_

from mollikit import (
    Adaptive,
    Antithetic,
    Budget,
    Bump,
    Cauchy,
    Epanechnikov,
    Evaluations,
    Gaussian,
    Halton,
    HyperbolicSecant,
    Independent,
    Kernel,
    Laplace,
    LatinHypercube,
    Lattice,
    LocalBlocks,
    Logistic,
    OfRange,
    Orthogonal,
    Recentred,
    RelativeError,
    Sampler,
    Scale,
    Seconds,
    Sobol,
    StudentT,
    Subspace,
    Triangular,
    Uniform,
    WhitenedBlocks,
    Width,
    WithinBounds,
)
from mollikit.comparison import Scheme
from mollikit.estimators import Piloted

KERNELS: dict[str, Callable[[Scale], Kernel]] = {
    "gaussian": Gaussian,
    "bump": Bump,
    "cauchy": Cauchy,
    "epanechnikov": Epanechnikov,
    "hyperbolic-secant": HyperbolicSecant,
    "laplace": Laplace,
    "logistic": Logistic,
    "student-t": StudentT,
    "triangular": Triangular,
    "uniform": Uniform,
}
FIXED_SAMPLERS: dict[str, Callable[[], Sampler]] = {"independent": Independent, "antithetic": Antithetic}
GROUPED_SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "recentred": Recentred,
    "latin-hypercube": LatinHypercube,
    "sobol": Sobol,
    "halton": Halton,
    "lattice": Lattice,
    "orthogonal": Orthogonal,
    "local-blocks": LocalBlocks,
    "whitened-blocks": WhitenedBlocks,
}
SAMPLERS = [*FIXED_SAMPLERS, *GROUPED_SAMPLERS]
DEFAULT_SECONDS = 10.0
# Schemes that learn from a pilot, each with what its number means.
LEARNING: dict[str, tuple[str, Callable[[Kernel, int], Piloted], int]] = {
    "adaptive": ("PILOT", lambda kernel, n: Adaptive(kernel, pilot=n), 32),
    "subspace": ("DIRECTIONS", lambda kernel, n: Subspace(kernel, n), 16),
}


def kernel(text: str) -> Callable[[Scale], Kernel]:
    """Read the name of a kernel; ``student-t:NU`` gives the degrees of freedom too.

    Raises
    ------
    ValueError
        If there is no such kernel.
    """
    name, colon, nu = text.partition(":")
    if not colon and name in KERNELS:
        return KERNELS[name]
    degrees = _numbers(nu)
    if name == "student-t" and len(degrees) == 1:
        StudentT(1.0, nu=degrees[0])
        return partial(StudentT, nu=degrees[0])
    raise ValueError(
        f"{text!r} is not a kernel: choose among {', '.join(KERNELS)} "
        "(or student-t:NU, with its degrees of freedom)"
    )


def scale(text: str) -> Scale:
    """Read ``0.5``, ``range:0.15`` or ``bounds:LOW,HIGH[,CONFIDENCE]``.

    Raises
    ------
    ValueError
        If it is none of these, or its numbers make no scale.
    """
    rule, colon, rest = text.rpartition(":")
    numbers = _numbers(rest)
    match rule, numbers:
        case "", [width] if not colon:
            return Width(width)
        case "range", [fraction]:
            return OfRange(fraction)
        case "bounds", [low, high, *confidence] if len(confidence) <= 1:
            return WithinBounds(low, high, *confidence)
    raise ValueError(
        f"{text!r} is not a scale: write a number in the input's units, range:0.15 (of max - min), "
        "or bounds:LOW,HIGH or bounds:LOW,HIGH,CONFIDENCE"
    )


def sampler(text: str) -> Sampler:
    """Read ``recentred:8``, ``sobol``, ``independent`` ...: a name, and for some the points of a group.

    Raises
    ------
    ValueError
        If there is no such sampler, or it has no such number of points.
    """
    name, colon, points = text.partition(":")
    if not colon and name in FIXED_SAMPLERS:
        return FIXED_SAMPLERS[name]()
    if name in GROUPED_SAMPLERS and (not colon or points.isdecimal()):
        return GROUPED_SAMPLERS[name](*([int(points)] if colon else []))
    raise ValueError(
        f"{text!r} is not a sampler: choose among {', '.join(FIXED_SAMPLERS)}, "
        f"{', '.join(f'{grouped}[:POINTS]' for grouped in GROUPED_SAMPLERS)}"
    )


def scheme(text: str) -> Callable[[Kernel], Scheme]:
    """Read a sampler, ``adaptive[:PILOT]`` or ``subspace[:DIRECTIONS]``: what makes a scheme of a kernel.

    Raises
    ------
    ValueError
        If it is none of these, or its number does not suit it.
    """
    name, colon, number = text.partition(":")
    if name not in LEARNING:
        try:
            made = sampler(text)
        except ValueError as error:
            more = ", ".join(f"{name}[:{number}]" for name, (number, *_) in LEARNING.items())
            raise ValueError(f"{error}, {more}" if "is not a sampler" in str(error) else str(error)) from None
        return lambda kernel: made
    what, make, default = LEARNING[name]
    if colon and not number.isdecimal():
        raise ValueError(f"{text!r}: {what} is a whole number, such as {name}:{default}")
    n = int(number) if colon else default
    make(Gaussian(1.0), n)
    return lambda kernel: make(kernel, n)


def relative_error(text: str) -> RelativeError:
    """Read ``0.1``, of the whole map, or ``0.1:pooled``, of a view.

    Raises
    ------
    ValueError
        If it does not begin with a positive number.
    """
    r, _, view = text.partition(":")
    numbers = _numbers(r)
    if len(numbers) != 1:
        raise ValueError(f"{text!r} is not a relative error: write 0.1, or 0.1:pooled for that of a view")
    return RelativeError(numbers[0], view or None)


def budget(asked: argparse.Namespace) -> Budget:
    """Join the budgets that were asked for: the first that is reached ends the run."""
    parts: list[Budget] = []
    if asked.evaluations is not None:
        parts.append(Evaluations(asked.evaluations))
    if asked.relative_error is not None:
        parts.append(relative_error(asked.relative_error))
    if asked.seconds is not None:
        parts.append(Seconds(asked.seconds))
    return reduce(or_, parts) if parts else Seconds(DEFAULT_SECONDS)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        return []
