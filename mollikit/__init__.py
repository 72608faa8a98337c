"""Smoothed gradients of neural networks, with error bars."""

from mollikit import recipes
from mollikit._version import __version__
from mollikit.budgets import Budget, Evaluations, RelativeError, Seconds
from mollikit.estimate import Estimate, Measurement
from mollikit.estimators import (
    Basis,
    Columns,
    Cosines,
    Estimator,
    InBasis,
    Pathwise,
    ScoreFunction,
    Secant,
    Superpixels,
)
from mollikit.interruption import Interrupted
from mollikit.kernels import (
    Bump,
    Cauchy,
    Density,
    Epanechnikov,
    Gaussian,
    HyperbolicSecant,
    Kernel,
    Laplace,
    Logistic,
    StudentT,
    Triangular,
    Uniform,
    from_density,
)
from mollikit.oracles import Anchored, GradientOracle, ModelFile, ValueOracle
from mollikit.progress import Progress, ProgressBar
from mollikit.samplers import Antithetic, Independent, LatinHypercube, Recentred, Sampler, Sobol
from mollikit.scales import OfMagnitude, OfRange, Scale, Width, WithinBounds
from mollikit.views import ChannelSum, Input, Pool, View

__all__ = [
    "Anchored",
    "Antithetic",
    "Basis",
    "Budget",
    "Bump",
    "Cauchy",
    "ChannelSum",
    "Columns",
    "Cosines",
    "Density",
    "Epanechnikov",
    "Estimate",
    "Estimator",
    "Evaluations",
    "Gaussian",
    "GradientOracle",
    "HyperbolicSecant",
    "InBasis",
    "Independent",
    "Input",
    "Interrupted",
    "Kernel",
    "Laplace",
    "LatinHypercube",
    "Logistic",
    "Measurement",
    "ModelFile",
    "OfMagnitude",
    "OfRange",
    "Pathwise",
    "Pool",
    "Progress",
    "ProgressBar",
    "Recentred",
    "RelativeError",
    "Sampler",
    "Scale",
    "ScoreFunction",
    "Secant",
    "Seconds",
    "Sobol",
    "StudentT",
    "Superpixels",
    "Triangular",
    "Uniform",
    "ValueOracle",
    "View",
    "Width",
    "WithinBounds",
    "__version__",
    "from_density",
    "recipes",
]
