"""Ways of drawing points, one file each; every point has exactly the kernel's law."""

from mollikit.samplers.antithetic import Antithetic
from mollikit.samplers.base import Sampler
from mollikit.samplers.independent import Independent
from mollikit.samplers.latin_hypercube import LatinHypercube
from mollikit.samplers.recentred import Recentred
from mollikit.samplers.sobol import Sobol

__all__ = ["Antithetic", "Independent", "LatinHypercube", "Recentred", "Sampler", "Sobol"]
