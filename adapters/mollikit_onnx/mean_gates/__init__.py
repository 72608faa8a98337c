from mollikit_onnx.mean_gates.estimator import MeanGates
from mollikit_onnx.mean_gates.linear_model import NoMeanGateError
from mollikit_onnx.mean_gates.variates import GateVariates

__all__ = ["GateVariates", "MeanGates", "NoMeanGateError"]
