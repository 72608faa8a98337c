"""The nets of tests/onnx/models.py in every framework, with the same weights under the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

import mollikit as mk
from tests.onnx import models

MODELS = {"mlp": models.mlp, "cnn": models.cnn}
SHAPES = {"mlp": (6,), "cnn": (2, 8, 8)}


@dataclass(frozen=True)
class Renamed:
    """An oracle that shows its weights under the names of the ONNX model, and in its layout.

    Attributes
    ----------
    oracle
        Reweightable, with names and layouts of its own.
    names : mapping
        From the common name to the oracle's own.
    orders : mapping
        By common name, the axes of the oracle's own tensor in the common order, where they differ.
    """

    oracle: Any
    names: Mapping[str, str]
    orders: Mapping[str, tuple[int, ...]]

    @property
    def weights(self):
        own = self.oracle.weights
        assert sorted(own) == sorted(self.names.values())
        return {
            name: np.transpose(own[mine], self.orders.get(name)) if name in self.orders else own[mine]
            for name, mine in self.names.items()
        }

    def reweighted(self, weights):
        return self.oracle.reweighted(
            {
                self.names[name]: np.transpose(values, np.argsort(self.orders[name]))
                if name in self.orders
                else values
                for name, values in weights.items()
            }
        )

    def value_and_gradient(self, points, **held):
        return self.oracle.value_and_gradient(points, **held)

    def values_and_gradients(self, points, targets, **held):
        return self.oracle.values_and_gradients(points, targets, **held)

    def anchored(self, inputs, **held):
        return Renamed(self.oracle.anchored(inputs, **held), self.names, self.orders)


def onnx(net):
    """ONNX Runtime."""
    from mollikit_onnx import OnnxOracle

    return OnnxOracle(MODELS[net](), target=1, values=True)


def torch(net):
    """PyTorch: the kernel of a linear layer is (out, in)."""
    from mollikit_torch import TorchOracle

    from tests.torch import nets

    module = {"mlp": nets.mlp, "cnn": nets.cnn}[net]()
    names = {
        "mlp": {"W1": "0.weight", "b1": "0.bias", "W2": "2.weight", "b2": "2.bias"},
        "cnn": {"K1": "0.weight", "c1": "0.bias", "K2": "3.weight"},
    }[net]
    orders = {"W1": (1, 0), "W2": (1, 0)} if net == "mlp" else {}
    return Renamed(TorchOracle(module, target=1), names, orders)


def tensorflow(net):
    """Keras: the kernel of a convolution is (height, width, in, out)."""
    from mollikit_tensorflow import TensorFlowOracle

    from tests.tensorflow import nets

    model = {"mlp": nets.mlp, "cnn": nets.cnn}[net]()
    names = {
        "mlp": {
            "W1": "mlp/first/kernel",
            "b1": "mlp/first/bias",
            "W2": "mlp/second/kernel",
            "b2": "mlp/second/bias",
        },
        "cnn": {"K1": "cnn/first/kernel", "c1": "cnn/first/bias", "K2": "cnn/second/kernel"},
    }[net]
    orders = {"K1": (3, 2, 0, 1), "K2": (3, 2, 0, 1)} if net == "cnn" else {}
    return Renamed(TensorFlowOracle(model, target=1), names, orders)


def jax(net):
    """JAX."""
    from mollikit_jax import JaxOracle

    from tests.jax import nets

    function, params = {"mlp": (nets.mlp, nets.mlp_params()), "cnn": (nets.cnn, nets.cnn_params())}[net]
    return JaxOracle(function, params, target=1)


@dataclass(frozen=True)
class NumPy:
    """A function with its gradient by hand, in float64, for given weights."""

    function: Callable[..., Any]
    weights: Mapping[str, Any]

    def reweighted(self, weights):
        drawn = {**self.weights, **weights}
        return mk.FunctionOracle(value_and_gradient=lambda x: self.function(x.astype(np.float64), **drawn))

    def value_and_gradient(self, points, **held):
        return self.reweighted({}).value_and_gradient(points, **held)


def numpy(net):
    """NumPy, with gradients by hand."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in MODELS[net]().graph.initializer}
    return NumPy({"mlp": mlp_by_hand, "cnn": cnn_by_hand}[net], weights)


def mlp_by_hand(x, W1, b1, W2, b2):
    """Value and gradient of logit 1."""
    a = np.tanh(x @ W1 + b1)
    return a @ W2[:, 1] + b2[1], (W2[:, 1] * (1 - a**2)) @ W1.T


def cnn_by_hand(image, K1, c1, K2):
    """Value and gradient of logit 1: the mean over a valid convolution is a product with a fixed array."""
    padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    hidden = np.einsum("ncijkl,ockl->noij", windows, K1) + c1[:, None, None]
    pooled = np.maximum(hidden, 0).reshape(len(image), 6, 4, 2, 4, 2).mean((3, 5))
    # d logit / d pooled: each of the 2x2 places of the second convolution, a quarter each.
    head = np.zeros((6, 4, 4))
    for i in range(2):
        for j in range(2):
            head[:, i : i + 3, j : j + 3] += K2[1] / 4
    back = (hidden > 0) * (head.repeat(2, 1).repeat(2, 2) / 4)
    gradient = np.zeros(padded.shape)
    for k in range(3):
        for m in range(3):
            gradient[:, :, k : k + 8, m : m + 8] += np.einsum("noij,oc->ncij", back, K1[:, :, k, m])
    return (pooled * head).sum((1, 2, 3)), gradient[:, :, 1:9, 1:9]


FRAMEWORKS = {"onnx": onnx, "torch": torch, "tensorflow": tensorflow, "jax": jax, "numpy": numpy}
NEEDS = {"onnx": "onnxruntime", "torch": "torch", "tensorflow": "tensorflow", "jax": "jax", "numpy": "numpy"}
