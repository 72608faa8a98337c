"""The axioms of a mollifier and of an approximate identity, checked for one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mollikit.kernels import Kernel
from mollikit.kernels.measured import holder_exponent, integral, moment_limit

# Of the mass and of the evenness, relative: beyond what quadrature and rounding can blur.
_MASS_TOLERANCE = 1e-8
_EVEN_TOLERANCE = 1e-12
# What can be seen of the smoothness of a density that does not state it.
_SEEN_SMOOTHNESS = 3

_MOLLIFIER = ("non-negative", "unit mass", "even", "concentration", "smoothness", "compact support")
_APPROXIMATE_IDENTITY = ("unit mass", "integrable tail", "concentration")


@dataclass(frozen=True)
class Axiom:
    """One axiom, whether it holds, and the number that says so.

    Attributes
    ----------
    name : str
    holds : bool or None
        None where it cannot be decided numerically.
    value, error : float
        The number that the verdict rests on, and how far off it may be; 0 where it is exact.
    exact : bool
        Whether the kernel's family states it in closed form; otherwise it was measured.
    meaning : str
        What the value is.
    """

    name: str
    holds: bool | None
    value: float
    error: float
    exact: bool
    meaning: str


@dataclass(frozen=True)
class Report:
    """The axioms of one kernel; printed as a table, and as rows for a program."""

    kernel: str
    axioms: tuple[Axiom, ...]

    @property
    def mollifier(self) -> bool | None:
        """Whether it is a mollifier: even, non-negative, of unit mass and compact support, and smooth."""
        return _all(self[name].holds for name in _MOLLIFIER)

    @property
    def approximate_identity(self) -> bool | None:
        """Whether f_K tends to f as the scale goes to zero, wherever f is bounded and continuous."""
        return _all(self[name].holds for name in _APPROXIMATE_IDENTITY)

    def __getitem__(self, name: str) -> Axiom:
        return {axiom.name: axiom for axiom in self.axioms}[name]

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each axiom, with the kernel's name."""
        return [{"kernel": self.kernel, **asdict(axiom)} for axiom in self.axioms]

    def __repr__(self) -> str:
        lines = [
            f"{axiom.name:<16}{verdict(axiom.holds):<5}{_number(axiom):<24}{axiom.meaning}"
            for axiom in self.axioms
        ]
        return "\n".join(
            [
                self.kernel,
                *lines,
                f"mollifier: {verdict(self.mollifier)}; "
                f"approximate identity: {verdict(self.approximate_identity)}",
            ]
        )


def check(kernel: Kernel) -> Report:
    """Check a kernel's standard form against the axioms.

    A mollifier is a positive, even function of unit mass, smooth of every order and of compact support;
    an approximate identity is an integrable function of unit mass. Both concentrate as the scale goes to
    zero, so that the smoothed function tends to the function. What a family states in closed form
    (support, moments, smoothness) is exact; the rest is measured, with its error.

    Parameters
    ----------
    kernel : Kernel

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If the kernel's upper quartile is not a positive number, so that it has no width to look at.

    Source: Friedrichs 1944, "The identity of weak and strong extensions of differential operators", for
    mollifiers; Stein and Weiss 1971, "Introduction to Fourier Analysis on Euclidean Spaces", chapter I,
    theorem 1.18, for approximate identities; the question is that of arXiv 2407.00371, "Axiomatization of
    Gradient Smoothing in Neural Networks".

    Examples
    --------
    >>> import mollikit as mk
    >>> from mollikit import axioms
    >>> axioms.check(mk.Bump(1.0)).mollifier, axioms.check(mk.Cauchy(1.0)).mollifier
    (True, False)
    >>> axioms.check(mk.Cauchy(1.0)).approximate_identity
    True
    """
    length, reach = float(kernel.inverse_cdf(0.75)), kernel.support[1]
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"{kernel!r}: its upper quartile is {length!r}; a kernel has a positive width")
    near = np.linspace(0, min(16 * length, reach), 4097)
    t = np.concatenate([near, length * np.geomspace(16, 1e6, 512)])
    right, left = (np.asarray(kernel.density(s), dtype=np.float64) for s in (t, -t))
    top = float(max(right.max(), left.max()))
    least, oddness = float(min(right.min(), left.min())), float(np.abs(right - left).max()) / top
    halves = [
        integral(lambda x, sign=sign: float(kernel.density(sign * x)), 0.0, reach, length)  # type: ignore[misc]
        for sign in (1.0, -1.0)
    ]
    mass, mass_error = sum(half.value for half in halves), sum(half.error for half in halves)
    whole = all(half.converged for half in halves)
    return Report(
        repr(kernel),
        (
            Axiom("non-negative", least >= 0, least, 0.0, False, f"least density at {2 * t.size} points"),
            Axiom(
                "unit mass",
                whole and abs(mass - 1) <= max(_MASS_TOLERANCE, mass_error),
                mass,
                mass_error,
                False,
                "integral of K",
            ),
            Axiom(
                "even",
                oddness <= _EVEN_TOLERANCE,
                oddness,
                0.0,
                False,
                "largest |K(t) - K(-t)| over largest K",
            ),
            _tail(kernel, length, reach),
            _concentration(kernel),
            _smoothness(kernel, length, reach),
            Axiom("compact support", bool(np.isfinite(reach)), reach, 0.0, True, "end of the support"),
        ),
    )


def verdict(holds: bool | None) -> str:
    """Write a verdict for people."""
    return "?" if holds is None else "yes" if holds else "no"


def _tail(kernel: Kernel, length: float, reach: float) -> Axiom:
    stated = kernel.moment_limit
    limit = moment_limit(kernel.density, length, reach) if stated is None else stated
    told = "moments of every order" if np.isinf(limit) else "moments of every order below this"
    return Axiom(
        "integrable tail", limit > 0, limit, 0.0 if stated is not None else 1e-4, stated is not None, told
    )


def _concentration(kernel: Kernel) -> Axiom:
    radius = float(kernel.inverse_cdf(0.995))
    return Axiom(
        "concentration",
        bool(np.isfinite(radius)),
        radius,
        0.0,
        False,
        "99% of the mass within this many scales",
    )


def _smoothness(kernel: Kernel, length: float, reach: float) -> Axiom:
    stated = kernel.smoothness
    if stated is not None:
        return Axiom(
            "smoothness", bool(np.isinf(stated)), stated, 0.0, True, "k of the class C^k; -1 for a jump"
        )
    fit = holder_exponent(kernel.density, length, reach)
    seen = fit.smoothness
    if seen >= _SEEN_SMOOTHNESS:
        return Axiom(
            "smoothness", None, seen, fit.spread, False, "k of the class C^k, or more: as far as is seen"
        )
    return Axiom("smoothness", False, seen, fit.spread, False, "k of the class C^k; -1 for a jump")


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = set(verdicts)
    return False if False in found else None if None in found else True


def _number(axiom: Axiom) -> str:
    return f"{axiom.value:.9g}" + (f" +- {axiom.error:.1g}" if axiom.error else "")
