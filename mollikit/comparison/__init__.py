"""Sampling schemes side by side, on one's own model: ``compare``, and the report that people read."""

from mollikit.comparison.compare import ComparisonInterrupted, compare
from mollikit.comparison.comparison import Comparison, Prospect, Row
from mollikit.comparison.schemes import Scheme, default_schemes

__all__ = ["Comparison", "ComparisonInterrupted", "Prospect", "Row", "Scheme", "compare", "default_schemes"]
