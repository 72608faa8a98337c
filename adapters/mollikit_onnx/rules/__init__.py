from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mollikit_onnx.accumulation import formula
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.registry import Sent, expansion, rule

__all__ = ["Node", "Sent", "Tensor", "expansion", "formula", "load_rules", "rule"]


@cache
def load_rules() -> None:
    """Register the rules in the files of this folder; later calls cost nothing."""
    for family in iter_modules(__path__):
        import_module(f"{__name__}.{family.name}")
