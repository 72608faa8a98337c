from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "elementwise",
    "activation",
    "trigonometry",
    "constant",
    "convolution",
    "linear_algebra",
    "loss",
    "normalization",
    "pooling",
    "reduction",
    "shape",
    "signal",
    "spatial",
    "indexing",
)


def load_rules() -> None:
    """Register the rules of the standard operators; later calls cost nothing."""
    for family in FAMILIES:
        import_module(f"mollikit_onnx.rules.{family}")
