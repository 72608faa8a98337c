"""Estimators of smoothed gradients."""

from mollikit.estimators.base import Estimator
from mollikit.estimators.bases import Basis, Columns, Cosines, Superpixels
from mollikit.estimators.in_basis import InBasis
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.score_function import ScoreFunction
from mollikit.estimators.secant import Secant

__all__ = [
    "Basis",
    "Columns",
    "Cosines",
    "Estimator",
    "InBasis",
    "Pathwise",
    "ScoreFunction",
    "Secant",
    "Superpixels",
]
