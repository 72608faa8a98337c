"""Can a model's gradients be smoothed, and what do they cost: in words that say what to do."""

from mollikit.health.examination import examine
from mollikit.health.findings import Finding, Health, Verdict

__all__ = ["Finding", "Health", "Verdict", "examine"]
