"""ONNX graphs and their tensors, as the rules write them."""
