"""Small nets as functions of their parameters, those of tests/onnx/models.py; Flax and Equinox ones."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
from flax import linen, nnx
from jax import numpy as jnp
from onnx import numpy_helper

from tests.onnx import models


def _weights(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def mlp_params():
    return _weights(models.mlp())


def mlp(params, x):
    """x (n, 6) -> logits (n, 5): tests.onnx.models.mlp; of a single example as well."""
    hidden = jnp.tanh(x @ params["W1"] + params["b1"])
    return hidden @ params["W2"] + params["b2"]


def cnn_params():
    return _weights(models.cnn())


def cnn(params, image, activation=jax.nn.relu):
    """image (n, 2, 8, 8) -> logits (n, 4): tests.onnx.models.cnn, with ReLU at least."""
    hidden = activation(jax.lax.conv(image, params["K1"], (1, 1), "SAME") + params["c1"][:, None, None])
    hidden = hidden.reshape(len(image), 6, 4, 2, 4, 2).mean((3, 5))
    return jax.lax.conv(hidden, params["K2"], (1, 1), "VALID").mean((2, 3))


def two_inputs(params, a, b, mask):
    """tests.onnx.models.two_inputs."""
    return jnp.tanh(a @ params["W"]) * b + mask * b


def two_inputs_params():
    return _weights(models.two_inputs())


class Linen(linen.Module):
    """x (n, 6) -> logits (n, 3), with BatchNorm."""

    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(8)(x))
        return linen.Dense(3)(linen.BatchNorm(use_running_average=True)(x))


def linen_net():
    module = Linen()
    return module, module.init(jax.random.key(0), jnp.ones((1, 6)))


class Nnx(nnx.Module):
    """x (n, 6) -> logits (n, 3), with BatchNorm and dropout."""

    def __init__(self, rngs):
        self.first, self.norm = nnx.Linear(6, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.drop, self.last = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jnp.tanh(self.norm(self.first(x)))))


def nnx_net():
    net = Nnx(nnx.Rngs(0))
    net.eval()
    net.norm.mean[...] = jnp.asarray(np.random.default_rng(0).standard_normal(8))
    return net


def equinox_net():
    """x (6,) -> logits (3,): a single example."""
    return eqx.nn.MLP(6, 3, 8, 1, activation=jnp.tanh, key=jax.random.key(0))
