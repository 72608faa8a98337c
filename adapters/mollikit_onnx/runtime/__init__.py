"""Models and their gradients in sessions of ONNX Runtime: the oracle."""
