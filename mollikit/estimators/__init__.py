"""Estimators of smoothed gradients."""

from mollikit.estimators.attributions import Attribution, InputTimesGradient
from mollikit.estimators.base import Estimator
from mollikit.estimators.bases import Basis, Columns, Cosines, Superpixels
from mollikit.estimators.in_basis import InBasis
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.score_function import ScoreFunction
from mollikit.estimators.secant import Secant

__all__ = [
    "Attribution",
    "Basis",
    "Columns",
    "Cosines",
    "Estimator",
    "InBasis",
    "InputTimesGradient",
    "Pathwise",
    "ScoreFunction",
    "Secant",
    "Superpixels",
]
