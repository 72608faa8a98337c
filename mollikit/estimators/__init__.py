"""Estimators of smoothed gradients."""

from mollikit.estimators.base import Estimator
from mollikit.estimators.pathwise import Pathwise

__all__ = ["Estimator", "Pathwise"]
