from mollikit_torch.mean_gates.estimator import MeanGates
from mollikit_torch.mean_gates.tracing import NoMeanGateError

__all__ = ["MeanGates", "NoMeanGateError"]
