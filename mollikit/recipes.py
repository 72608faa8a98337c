"""Named compositions: the methods of the literature, a few lines each."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from mollikit.estimate import Estimate
from mollikit.estimators import Pathwise
from mollikit.kernels import Gaussian
from mollikit.oracles import GradientOracle
from mollikit.samplers import Recentred
from mollikit.scales import OfMagnitude, OfRange, WithinBounds


def smoothgrad(oracle: GradientOracle, inputs: Any, *, noise: float = 0.15, **options: Any) -> Estimate:
    """SmoothGrad: the mean gradient under Gaussian noise of a fraction of the input's range.

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape)
    noise : float
        Standard deviation over max - min; the paper recommends 0.1 to 0.2.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        Over recentred points in groups of 8, for ten seconds unless a budget is given.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> mk.recipes.smoothgrad(Square(), np.array([0.0, 1.0]), budget=mk.Evaluations(64), rng=0).n_evaluations
    64
    """
    return Pathwise(inputs=Gaussian(OfRange(noise))).estimate(oracle, inputs, **options)


def smoothgrad_squared(
    oracle: GradientOracle, inputs: Any, *, noise: float = 0.15, **options: Any
) -> Estimate:
    """SmoothGrad-squared: the mean square of the gradient under the noise of `smoothgrad`.

    It is ``estimate.mean_square``; the same points give the mean and the variance. A budget looks at it
    as ``RelativeError(0.1, view="mean_square")``. To have *views* of the squares, such as their sum over
    the channels, smooth ``Attribution(oracle, lambda points, gradients: gradients**2)`` instead.

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape)
    noise : float
        Standard deviation over max - min.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        With ``mean_square`` and ``variance``.

    Source: Hooker et al. 2019, "A benchmark for interpretability methods in deep neural networks", section 3.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> estimate = mk.recipes.smoothgrad_squared(
    ...     Square(), np.array([0.0, 2.0]), noise=0.5, budget=mk.Evaluations(1 << 16), rng=0)
    >>> estimate.mean_square.value.round(1)      # 4 (x^2 + 1)
    array([ 4., 20.])
    """
    smooth = Pathwise(inputs=Gaussian(OfRange(noise)), second_moments=True)
    return smooth.estimate(oracle, inputs, **options)


def vargrad(oracle: GradientOracle, inputs: Any, *, noise: float = 0.15, **options: Any) -> Estimate:
    """VarGrad: the variance of the gradient under the noise of `smoothgrad`.

    It is ``estimate.variance``, without bias at any number of points. (The paper writes a variance and
    not its divisor; Captum's program takes the mean of g^2 less the square of the mean, which is a share
    1/n too small for n independent points.) The tails of the kernel must leave the gradient a fourth moment.

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape)
    noise : float
        Standard deviation over max - min.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        With ``variance`` and ``mean_square``.

    Source: Adebayo et al. 2018, "Local explanation methods for deep neural networks lack sensitivity to
    parameter values", section 2.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Square:
    ...     def value_and_gradient(self, points): return (points**2).sum(-1), 2 * points
    >>> estimate = mk.recipes.vargrad(
    ...     Square(), np.array([0.0, 2.0]), noise=0.5, budget=mk.Evaluations(1 << 16), rng=0)
    >>> estimate.variance.value.round(1)         # 4 s^2, s = 1
    array([4., 4.])
    """
    smooth = Pathwise(inputs=Gaussian(OfRange(noise)), second_moments=True)
    return smooth.estimate(oracle, inputs, **options)


def adaptgrad(
    oracle: GradientOracle,
    inputs: Any,
    *,
    low: ArrayLike,
    high: ArrayLike,
    confidence: float = 0.95,
    **options: Any,
) -> Estimate:
    """AdaptGrad: SmoothGrad with noise that is as wide in each coordinate as the bounds of the data allow.

    The standard deviation is the distance to the nearer bound over sqrt(2) erfinv(confidence), so that
    a noisy coordinate stays inside the interval about x of that radius with this probability. A coordinate
    on a bound does not move. Nothing is clamped: see `Truncated` for points that never leave the bounds.

    Parameters
    ----------
    oracle : GradientOracle
    inputs : array (*shape)
        Inside the bounds.
    low, high : float or array
        Bounds of the data, in the units of the model's input (after preprocessing).
    confidence : float
        In (0, 1).
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate

    Source: Zhou et al. 2024, "AdaptGrad: adaptive sampling to reduce noise", arXiv 2410.07711.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Cubic:
    ...     def value_and_gradient(self, points): return (points**3).sum(-1), 3 * points**2
    >>> estimate = mk.recipes.adaptgrad(
    ...     Cubic(), np.array([0.5, 1.0]), low=0, high=1, budget=mk.Evaluations(64), rng=0)
    >>> float(estimate.standard_error[1])        # on the bound: held fixed
    0.0
    """
    smooth = Pathwise(inputs=Gaussian(WithinBounds(low, high, confidence)))
    return smooth.estimate(oracle, inputs, **options)


def noisegrad(oracle: GradientOracle, inputs: Any, *, weight_noise: float = 0.2, **options: Any) -> Estimate:
    """NoiseGrad: the mean gradient of models whose weights are multiplied by Gaussian noise of mean one.

    Each model is theta (1 + s z), z ~ N(0, 1) for each weight by itself, as in the paper. (The authors'
    program multiplies the weights of the model *before* at each step, since its copy of the originals
    shares their memory: its i-th model carries the product of i noises, and the caller's model stays so.)
    Biases and the scales of normalisation layers are weights too; running statistics are not. The gradient
    stands where the paper allows any explanation: see `Attribution`.

    Parameters
    ----------
    oracle : GradientOracle
        One whose weights may be smoothed (`Reweightable`).
    inputs : array (*shape)
    weight_noise : float
        Standard deviation s of a weight over its magnitude; 0.2 is the default of the authors' program.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        Over antithetic pairs of models, for ten seconds unless a budget is given.

    Source: Bykov et al. 2022, "NoiseGrad: enhancing explanations by introducing stochasticity to model
    weights", arXiv 2106.10185.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Squares:
    ...     def __init__(self, weights): self.weights = weights
    ...     def reweighted(self, weights): return Squares(weights)
    ...     def value_and_gradient(self, points):
    ...         w = self.weights["w"]
    ...         return ((w * points) ** 2).sum(-1) / 2, w**2 * points
    >>> net = Squares({"w": np.ones(2)})
    >>> estimate = mk.recipes.noisegrad(net, np.array([1.0, 2.0]), budget=mk.Evaluations(4096), rng=0)
    >>> estimate.gradient.round(2)               # (1 + s^2) x
    array([1.04, 2.08])
    """
    smooth = Pathwise(weights=Gaussian(OfMagnitude(weight_noise)))
    return smooth.estimate(oracle, inputs, **options)


def fusiongrad(
    oracle: GradientOracle,
    inputs: Any,
    *,
    noise: float = 0.15,
    weight_noise: float = 0.2,
    inputs_per_model: int = 10,
    **options: Any,
) -> Estimate:
    """FusionGrad: NoiseGrad and SmoothGrad together, several noisy inputs under each noisy model.

    Parameters
    ----------
    oracle : GradientOracle
        One whose weights may be smoothed (`Reweightable`).
    inputs : array (*shape)
    noise : float
        Standard deviation of the inputs over max - min, as in `smoothgrad`. (The authors' program has
        0.4 in the units of its normalised images.)
    weight_noise : float
        Standard deviation of a weight over its magnitude, as in `noisegrad`.
    inputs_per_model : int
        The paper's M, at least 2; 10 is the default of the authors' program.
    **options
        Those of `Pathwise.estimate`: budget, rng, views, held, executor, progress.

    Returns
    -------
    Estimate
        Over antithetic pairs of models with recentred inputs under each; the error bars count pairs.

    Source: Bykov et al. 2022, "NoiseGrad: enhancing explanations by introducing stochasticity to model
    weights", arXiv 2106.10185.

    Examples
    --------
    >>> import numpy as np, mollikit as mk
    >>> class Cubes:
    ...     def __init__(self, weights): self.weights = weights
    ...     def reweighted(self, weights): return Cubes(weights)
    ...     def value_and_gradient(self, points):
    ...         w = self.weights["w"]
    ...         return ((w * points) ** 3).sum(-1) / 3, w**3 * points**2
    >>> net = Cubes({"w": np.ones(2)})
    >>> estimate = mk.recipes.fusiongrad(
    ...     net, np.array([1.0, 2.0]), noise=0.5, budget=mk.Evaluations(1 << 15), rng=0)
    >>> low, high = estimate.interval(0.99)      # the truth is (1 + 3 * 0.2^2) (x^2 + 0.5^2)
    >>> bool(((low < [1.4, 4.76]) & ([1.4, 4.76] < high)).all())
    True
    """
    smooth = Pathwise(
        Gaussian(OfRange(noise)), Recentred(inputs_per_model), weights=Gaussian(OfMagnitude(weight_noise))
    )
    return smooth.estimate(oracle, inputs, **options)
