"""Estimators of smoothed gradients."""

from mollikit.estimators.adaptive import Adaptive
from mollikit.estimators.attributions import Attribution, InputTimesGradient
from mollikit.estimators.base import Estimator
from mollikit.estimators.bases import Basis, Columns, Cosines, Superpixels
from mollikit.estimators.in_basis import InBasis
from mollikit.estimators.paired import Difference, Side, difference
from mollikit.estimators.pathwise import Pathwise
from mollikit.estimators.piloted import Piloted
from mollikit.estimators.score_function import ScoreFunction
from mollikit.estimators.secant import Secant
from mollikit.estimators.subspace import Subspace

__all__ = [
    "Adaptive",
    "Attribution",
    "Basis",
    "Columns",
    "Cosines",
    "Difference",
    "Estimator",
    "InBasis",
    "InputTimesGradient",
    "Pathwise",
    "Piloted",
    "ScoreFunction",
    "Secant",
    "Side",
    "Subspace",
    "Superpixels",
    "difference",
]
