from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Quantiles(Protocol):
    """What a scale rule may ask of the kernel it belongs to."""

    def inverse_cdf(self, u: Any) -> Any:
        """Quantiles of the standard form."""
        ...

    @property
    def support(self) -> tuple[float, float]:
        """Support of the standard form."""
        ...


class NothingMovesError(ValueError):
    """A scale is zero for every coordinate of an input."""


class Scale(ABC):
    """How wide a kernel is, for each coordinate of an input.

    A rule is resolved once, from the clean input, and then frozen: the estimand ignores that the
    width depends on the input.
    """

    def resolve(self, inputs: NDArray[Any], kernel: Quantiles) -> NDArray[np.float64]:
        """Widths in the input's units, of the input's shape.

        Raises
        ------
        ValueError
            If a width is negative or not finite, or if all are zero, or if the shape does not fit.
        """
        widths = np.asarray(self._widths(np.asarray(inputs, dtype=np.float64), kernel), dtype=np.float64)
        try:
            widths = np.broadcast_to(widths, inputs.shape)
        except ValueError:
            raise ValueError(
                f"the scale has shape {widths.shape}, which does not broadcast to the input's {inputs.shape}"
            ) from None
        if not np.isfinite(widths).all():
            raise ValueError(f"{self} gives widths that are not finite; every width must be a finite number")
        if (widths < 0).any():
            raise ValueError(f"{self} gives a negative width ({widths.min():g}); widths are at least 0")
        if not widths.any():
            raise NothingMovesError(
                f"{self} is zero for every coordinate of this input: nothing would be smoothed. "
                "Give a positive width in the input's units."
            )
        return widths

    @abstractmethod
    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike: ...


@dataclass(frozen=True, eq=False)
class Width(Scale):
    """A width in the input's own units: a number, or an array that broadcasts to the input.

    A width of zero holds its coordinate fixed.
    """

    value: ArrayLike

    def __post_init__(self) -> None:
        widths = np.array(self.value, dtype=np.float64)
        if widths.size and not (np.isfinite(widths).all() and (widths >= 0).all() and widths.any()):
            raise ValueError(
                f"scale={self.value!r}: widths must be finite and at least 0, and one of them above 0"
            )
        widths.setflags(write=False)
        object.__setattr__(self, "value", widths)

    def __repr__(self) -> str:
        widths = np.asarray(self.value)
        return f"{float(widths):g}" if widths.ndim == 0 else f"<widths of shape {widths.shape}>"

    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike:
        return self.value


@dataclass(frozen=True)
class OfRange(Scale):
    """A fraction of the input's range, max - min: the convention of SmoothGrad.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".
    """

    fraction: float

    def __post_init__(self) -> None:
        _positive("OfRange", "fraction", self.fraction)

    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike:
        return self.fraction * np.ptp(inputs)


@dataclass(frozen=True)
class OfMagnitude(Scale):
    """A fraction of each coordinate's magnitude, so that the noise is multiplicative, x (1 + s t).

    Source: Bykov et al. 2022, "NoiseGrad: enhancing explanations by introducing stochasticity to
    model weights".
    """

    fraction: float

    def __post_init__(self) -> None:
        _positive("OfMagnitude", "fraction", self.fraction)

    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike:
        return self.fraction * np.abs(inputs)


@dataclass(frozen=True, eq=False)
class WithinBounds(Scale):
    """As wide as keeps each coordinate within bounds with a given confidence.

    The width is the distance to the nearer bound over the kernel's quantile at (1 + confidence) / 2.
    Nothing is clamped: with confidence c, a share 1 - c of the points of a coordinate at that distance
    lies outside. A confidence of 1 needs a kernel of compact support. A coordinate on a bound is held
    fixed.

    Source: Zhou et al. 2024, "AdaptGrad: Adaptive Sampling to Reduce Noise".

    Raises
    ------
    ValueError
        If the bounds are not ordered, the confidence is not in (0, 1], the input lies outside the
        bounds, or the confidence is 1 and the kernel's support is not compact.
    """

    low: ArrayLike
    high: ArrayLike
    confidence: float = 0.95

    def __post_init__(self) -> None:
        low, high = np.shape(self.low), np.shape(self.high)
        try:
            np.broadcast_shapes(low, high)
        except ValueError:
            raise ValueError(
                f"WithinBounds: low of shape {low} and high of {high} do not broadcast"
            ) from None
        if not (np.asarray(self.low) < np.asarray(self.high)).all():
            raise ValueError(f"WithinBounds: low={self.low!r} must lie below high={self.high!r}")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"WithinBounds: confidence={self.confidence!r} must be in (0, 1]")

    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike:
        for name, bound in (("low", self.low), ("high", self.high)):
            try:
                np.broadcast_to(bound, inputs.shape)
            except ValueError:
                raise ValueError(
                    f"WithinBounds: {name} has shape {np.shape(bound)}, which does not broadcast to the "
                    f"input's {inputs.shape}"
                ) from None
        room = np.minimum(inputs - np.asarray(self.low), np.asarray(self.high) - inputs)
        if (room < 0).any():
            first = np.unravel_index(int(np.argmax(room < 0)), room.shape)
            raise ValueError(
                f"{int((room < 0).sum())} coordinates of the input lie outside WithinBounds"
                f"({self.low!r}, {self.high!r}), the first at index {tuple(map(int, first))}; "
                "the bounds are in the units of the model's input, after preprocessing"
            )
        if self.confidence == 1:
            reach = kernel.support[1]
            if not np.isfinite(reach):
                raise ValueError(
                    f"{kernel!r} has unbounded support, so no width keeps it within bounds with "
                    "confidence 1; use a confidence below 1 or a compact kernel such as Uniform"
                )
        else:
            reach = float(kernel.inverse_cdf((1 + self.confidence) / 2))
        return np.asarray(room / reach)


@dataclass(frozen=True)
class Times(Scale):
    """A scale times a factor: what `Kernel.matched` makes of one."""

    scale: Scale
    factor: float

    def __repr__(self) -> str:
        return f"{self.factor:.6g} * {self.scale!r}"

    def _widths(self, inputs: NDArray[np.float64], kernel: Quantiles) -> ArrayLike:
        return self.factor * self.scale.resolve(inputs, kernel)


def as_scale(scale: Scale | ArrayLike) -> Scale:
    """Return the scale itself if it is a rule, and a `Width` if it is a number or an array."""
    return scale if isinstance(scale, Scale) else Width(scale)


def _positive(rule: str, name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{rule}: {name}={value!r} must be a positive finite number")
