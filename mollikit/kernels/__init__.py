"""Smoothing kernels: even probability densities on the line, one file each."""

from mollikit.kernels.base import Kernel
from mollikit.kernels.gaussian import Gaussian
from mollikit.kernels.laplace import Laplace
from mollikit.kernels.logistic import Logistic
from mollikit.kernels.uniform import Uniform

__all__ = ["Gaussian", "Kernel", "Laplace", "Logistic", "Uniform"]
