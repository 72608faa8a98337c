from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "elementwise",
    "activation",
    "trigonometry",
    "constant",
    "control_flow",
    "convolution",
    "cumulative",
    "einsum",
    "fused",
    "fused_attention",
    "indexing",
    "linear_algebra",
    "loss",
    "normalization",
    "pooling",
    "quantization",
    "quantized_operators",
    "recurrent",
    "reduction",
    "scatter",
    "resize",
    "regions",
    "sampling",
    "deformable",
    "shape",
    "signal",
    "spatial",
)


def load_rules() -> None:
    """Register the rules of the standard operators; later calls cost nothing."""
    for family in FAMILIES:
        import_module(f"mollikit_onnx.rules.{family}")
