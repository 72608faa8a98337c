"""Gradients of ONNX models as plain ONNX models, for any runtime."""

try:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mollikit_onnx needs the module {error.name}: pip install 'mollikit[onnx]' (or mollikit[onnx-gpu])",
        name=error.name,
    ) from error

from mollikit_onnx.errors import ModelError, OpsetError, UnknownTensorError, UnsupportedOperatorError
from mollikit_onnx.files import WrittenGradient, write_vjp
from mollikit_onnx.graphs.pruning import pruned
from mollikit_onnx.mean_gates import GateVariates, MeanGates
from mollikit_onnx.normal_form.precision import widened
from mollikit_onnx.registry import expansion, rule
from mollikit_onnx.reverse import vjp
from mollikit_onnx.runtime.oracle import OnnxOracle

__all__ = [
    "GateVariates",
    "MeanGates",
    "ModelError",
    "OnnxOracle",
    "OpsetError",
    "UnknownTensorError",
    "UnsupportedOperatorError",
    "WrittenGradient",
    "expansion",
    "pruned",
    "rule",
    "vjp",
    "widened",
    "write_vjp",
]
