"""Gradients of ONNX models as plain ONNX models, for any runtime."""

from mollikit_onnx.errors import ModelError, OpsetError, UnknownTensorError, UnsupportedOperatorError
from mollikit_onnx.mean_gates import MeanGates
from mollikit_onnx.oracle import OnnxOracle
from mollikit_onnx.pruning import pruned
from mollikit_onnx.registry import rule
from mollikit_onnx.reverse import vjp

__all__ = [
    "MeanGates",
    "ModelError",
    "OnnxOracle",
    "OpsetError",
    "UnknownTensorError",
    "UnsupportedOperatorError",
    "pruned",
    "rule",
    "vjp",
]
