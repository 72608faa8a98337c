"""PyTorch models as oracles: modules, functions, exported programs (.pt2) and Captum's methods."""

from typing import TYPE_CHECKING, Any

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mollikit_torch needs the module {error.name}: pip install 'mollikit[torch]'", name=error.name
    ) from error

from mollikit_torch.exported import open_exported
from mollikit_torch.mean_gates import MeanGates
from mollikit_torch.oracle import TorchOracle

if TYPE_CHECKING:
    from mollikit_torch.captum import CaptumOracle

__all__ = ["CaptumOracle", "MeanGates", "TorchOracle", "open_exported"]


def __getattr__(name: str) -> Any:
    # Captum is an extra of its own, and takes a second to import.
    if name != "CaptumOracle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mollikit_torch.captum import CaptumOracle
    except ModuleNotFoundError as error:
        raise ImportError(
            f"CaptumOracle needs the module {error.name}: pip install 'mollikit[captum]'"
        ) from error
    return CaptumOracle
