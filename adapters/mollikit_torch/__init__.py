"""PyTorch models as oracles: modules, functions and exported programs (.pt2)."""

from mollikit_torch.exported import open_exported
from mollikit_torch.oracle import TorchOracle

__all__ = ["TorchOracle", "open_exported"]
