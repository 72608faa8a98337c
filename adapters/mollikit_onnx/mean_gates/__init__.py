from mollikit_onnx.mean_gates.estimator import MeanGates

__all__ = ["MeanGates"]
