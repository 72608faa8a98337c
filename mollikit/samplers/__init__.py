"""Ways of drawing points, one file each; every point has exactly the kernel's law."""

from mollikit.samplers.antithetic import Antithetic
from mollikit.samplers.base import Sampler
from mollikit.samplers.halton import Halton
from mollikit.samplers.independent import Independent
from mollikit.samplers.latin_hypercube import LatinHypercube
from mollikit.samplers.lattice import Lattice
from mollikit.samplers.local_blocks import LocalBlocks
from mollikit.samplers.orthogonal import Orthogonal
from mollikit.samplers.recentred import Recentred
from mollikit.samplers.rotated_sobol import RotatedSobol
from mollikit.samplers.sobol import Sobol
from mollikit.samplers.whitened_blocks import WhitenedBlocks

__all__ = [
    "Antithetic",
    "Halton",
    "Independent",
    "LatinHypercube",
    "Lattice",
    "LocalBlocks",
    "Orthogonal",
    "Recentred",
    "RotatedSobol",
    "Sampler",
    "Sobol",
    "WhitenedBlocks",
]
