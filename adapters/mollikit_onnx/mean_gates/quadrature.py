from __future__ import annotations

import numpy as np
from onnx import NodeProto

from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.mean_gates.chains import Chain

# Gauss-Hermite nodes: with 16 the slope of a kink is off by 0.01 at worst, with 8 by twice that.
_NODES = 16


def gaussian_slope(chain: Chain, mean: Tensor, deviation: Tensor) -> Tensor:
    """E[dy/ds] for y the leaf of a chain and s ~ N(mean, deviation^2), element by element.

    By Stein's identity it is E[y(mean + deviation z) z] / deviation with z ~ N(0, 1): no derivative of
    the chain is needed, and kinks do no harm. The chain runs on a batch of quadrature nodes.

    Source: Stein 1981, "Estimation of the mean of a multivariate normal distribution", lemma 1.

    Parameters
    ----------
    chain : Chain
    mean, deviation : Tensor
        Of one row, (1, ...).
    """
    graph = mean.graph
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights /= weights.sum()
    column = (-1, *(1 for _ in range(mean.rank - 1)))
    dtype = np.float32 if mean.dtype == 1 else np.float64
    z = graph.constant(nodes.reshape(column).astype(dtype))
    renamed = {chain.source: (mean + deviation * z).name}
    for node in chain.nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = graph.fresh(f"mean_gates/{node.op_type}")
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [copy.name]
        renamed[node.output[0]] = graph.emit(copy)[0].name
    leaf = graph.tensor(renamed[chain.leaf])
    weighted = leaf * graph.constant((nodes * weights).reshape(column).astype(dtype))
    return weighted.op("ReduceSum", [0], keepdims=1) / deviation
