"""Linear operators of ai.onnx.ml, which scikit-learn's models become, written out.

Source: ONNX, docs/Operators-ml.md.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mollikit_onnx.rules import Node, Tensor, expansion

_NORMS = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}


@expansion("LinearRegressor", "Normalizer", "Scaler", domain="ai.onnx.ml")
def linear(node: Node) -> list[Tensor | None]:
    """Return x w' + b; x over the norm of its row, unless that is 0; or (x - offset) scale."""
    x = node.x
    if x.dtype != TensorProto.FLOAT or node.attribute("post_transform", "NONE") != "NONE":
        node.refuse("it is covered for float32, and without a post_transform")
    match node.proto.op_type:
        case "Normalizer":
            norm = x.op(_NORMS[node.attribute("norm")], [-1], keepdims=1)
            return [x / norm.where(norm.op("Cast", to=TensorProto.BOOL), 1.0)]
        case "Scaler":
            return [(x - x.like(node.attribute("offset"))) * x.like(node.attribute("scale"))]
    weights = np.reshape(node.attribute("coefficients"), (node.attribute("targets"), -1))
    return [x.op("MatMul", x.like(weights.T)) + x.like(node.attribute("intercepts", 0.0))]
