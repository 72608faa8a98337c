from mollikit_onnx.mean_gates.estimator import MeanGates
from mollikit_onnx.mean_gates.linear_model import NoMeanGateError

__all__ = ["MeanGates", "NoMeanGateError"]
