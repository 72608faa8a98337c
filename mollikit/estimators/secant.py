from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.engine.run import Task
from mollikit.estimators.base import Setting
from mollikit.estimators.frames import CoordinateFrames, HaarFrames
from mollikit.estimators.perturbation import Perturbation
from mollikit.estimators.radii import check_unimodal, secant_radii
from mollikit.estimators.tallies import tally_of_groups
from mollikit.estimators.values import FromValues, evaluate
from mollikit.kernels import Gaussian
from mollikit.moments import Tally
from mollikit.pointsets import Uniforms
from mollikit.samplers import Sampler

# The spread of fewer frames is too rough for an error bar that anybody would act upon.
_FEWEST_FRAMES = 8


@dataclass(frozen=True)
class Secant(FromValues):
    """From values alone: secants through x in d directions at once, unbiased for the smoothed gradient.

    With the Gaussian the directions u_k are a uniformly random orthonormal frame, and the radii chi_(d+2):

        sum_k u_k (f(x + s r_k u_k) - f(x - s r_k u_k)) / (2 s r_k).

    With any other symmetric unimodal kernel they are the coordinate axes, the radii have the density
    -2 r K'(r), and the other coordinates are jittered by the kernel, alike for both ends of a secant.
    For the uniform kernel the ends lie on opposite faces of the box. Widths that differ between the
    coordinates stretch the frame.

    Both are exact for linear f, and the frames for quadratic f too. On smooth models the error is far
    below that of `ScoreFunction` at equal evaluations; on a model that jumps it stays unbiased, though
    with a kernel that has a kink or a peak at zero (Laplace, Triangular) the variance may not exist.

    A group is one frame: 2 d evaluations.

    Parameters
    ----------
    inputs : Kernel or mapping of Kernel by input name
        Symmetric and unimodal. Rotated frames are used where all are Gaussian. Every coordinate must move.
    block : int, optional
        Rows in each call of the model; a frame may be spread over several calls.
    allow_poor : bool
        Take fewer than 8 frames, whose spread gives a poor error bar.

    Raises
    ------
    ValueError
        If the density of a kernel rises away from zero.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Plane:
    ...     def value(self, points): return points @ np.array([2.0, -3.0])
    >>> estimate = mk.Secant(mk.Gaussian(0.5)).estimate(Plane(), np.ones(2), budget=mk.Evaluations(32), rng=0)
    >>> estimate.gradient.round(12)
    array([ 2., -3.])
    """

    def _groups(self) -> Sampler:
        kernels = self.inputs.values() if isinstance(self.inputs, Mapping) else [self.inputs]
        return HaarFrames() if all(isinstance(k, Gaussian) for k in kernels) else CoordinateFrames()

    def _fewest(self, dimension: int) -> tuple[int, str]:
        return (
            2 * dimension * _FEWEST_FRAMES,
            f"error bars come from the spread of at least {_FEWEST_FRAMES} frames of 2 x {dimension}",
        )

    def _check(self, perturbation: Perturbation) -> None:
        super()._check(perturbation)
        for kernel, _ in perturbation.kernels:
            check_unimodal(kernel)

    def _task(self, setting: Setting, rows: int) -> Task:
        if isinstance(setting.sampler, HaarFrames):
            return RotatedSecants(setting, rows)
        return CoordinateSecants(setting, rows)


@dataclass(frozen=True)
class RotatedSecants:
    """Secants along the directions of Haar frames, in units of the widths."""

    setting: Setting
    rows: int

    def __call__(self, start: int, stop: int) -> Tally:
        s, p = self.setting, self.setting.perturbation
        drawn = s.key.groups(s.sampler, start, stop, p.shape, p.base.dtype, p.view)
        arms = drawn.values.reshape(stop - start, p.dimension, p.dimension)
        differences = _differences(s, arms, -arms, self.rows)
        # u_k / r_k is the arm r_k u_k over its squared length.
        weights = differences / (2 * np.square(arms).sum(axis=2))
        return tally_of_groups(
            s, np.matmul(weights[:, None, :], arms)[:, 0] / p.widths.astype(np.float64), None
        )


@dataclass(frozen=True)
class CoordinateSecants:
    """Secants along the axes, the other coordinates jittered by the kernel."""

    setting: Setting
    rows: int

    def __call__(self, start: int, stop: int) -> Tally:
        s, p, d = self.setting, self.setting.perturbation, self.setting.perturbation.dimension
        uniforms = s.key.groups(s.sampler, start, stop, p.shape, p.base.dtype, p.view).values
        jitter = p.steps(Uniforms(uniforms[..., :d])).reshape(-1, d, d)
        own = np.diagonal(jitter, axis1=1, axis2=2)
        radii = np.concatenate(
            [secant_radii(kernel, own[:, part], uniforms[:, part, d]) for kernel, part in p.kernels], axis=1
        )
        plus, minus, axes = jitter, jitter.copy(), np.arange(d)
        plus[:, axes, axes], minus[:, axes, axes] = radii, -radii
        return tally_of_groups(
            s, _differences(s, plus, minus, self.rows) / (2 * radii * p.widths.astype(np.float64)), None
        )


def _differences(setting: Setting, plus: NDArray[Any], minus: NDArray[Any], rows: int) -> NDArray[np.float64]:
    """f(x + s plus) - f(x + s minus), (groups, d), for steps (groups, d, D)."""
    groups, d, _ = plus.shape
    steps = np.concatenate([plus, minus], axis=1).reshape(groups * 2 * d, -1)
    values = evaluate(setting, setting.perturbation.moved(steps, len(steps)), rows).reshape(groups, 2, d)
    return values[:, 0] - values[:, 1]
