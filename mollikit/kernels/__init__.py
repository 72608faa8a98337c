"""Smoothing kernels: even probability densities on the line, one file each."""

from mollikit.kernels.base import Kernel
from mollikit.kernels.bump import Bump
from mollikit.kernels.cauchy import Cauchy
from mollikit.kernels.density import Density
from mollikit.kernels.epanechnikov import Epanechnikov
from mollikit.kernels.formula import from_density
from mollikit.kernels.gaussian import Gaussian
from mollikit.kernels.hyperbolic_secant import HyperbolicSecant
from mollikit.kernels.importance import Importance
from mollikit.kernels.laplace import Laplace
from mollikit.kernels.law import Law
from mollikit.kernels.logistic import Logistic
from mollikit.kernels.student_t import StudentT
from mollikit.kernels.triangular import Triangular
from mollikit.kernels.truncated import Truncated
from mollikit.kernels.uniform import Uniform

__all__ = [
    "Bump",
    "Cauchy",
    "Density",
    "Epanechnikov",
    "Gaussian",
    "HyperbolicSecant",
    "Importance",
    "Kernel",
    "Laplace",
    "Law",
    "Logistic",
    "StudentT",
    "Triangular",
    "Truncated",
    "Uniform",
    "from_density",
]
