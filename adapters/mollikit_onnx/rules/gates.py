from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mollikit_onnx.node import Node
from mollikit_onnx.tensor import Tensor

Value = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """An activation of a recurrent operator.

    Attributes
    ----------
    value : callable
        The function of a.
    slope : callable
        Its derivative, from a and the value.
    """

    value: Value
    slope: Slope


def _sigmoid(_a: Tensor, y: Tensor) -> Tensor:
    return y - y * y


def _tanh(_a: Tensor, y: Tensor) -> Tensor:
    return 1 - y * y


def _softsign(a: Tensor, _y: Tensor) -> Tensor:
    below = 1 + a.op("Abs")
    return 1 / (below * below)


def _step(condition: Tensor, a: Tensor) -> Tensor:
    return condition.op("Cast", to=a.dtype)


def _activation(name: str, alpha: float, beta: float) -> Activation | None:
    """Return an activation by its name in lower case, as the standard defines it for RNN."""
    known: dict[str, tuple[Value, Slope]] = {
        "affine": (lambda a: alpha * a + beta, lambda a, _: alpha + 0 * a),
        "elu": (
            partial(Tensor.op, op_type="Elu", alpha=alpha),
            lambda a, y: (y + alpha).where(a.op("Less", 0.0), 1.0),
        ),
        "hardsigmoid": (
            partial(Tensor.op, op_type="HardSigmoid", alpha=alpha, beta=beta),
            lambda a, y: alpha * _step(y.op("Greater", 0.0).op("And", y.op("Less", 1.0)), a),
        ),
        "leakyrelu": (
            partial(Tensor.op, op_type="LeakyRelu", alpha=alpha),
            lambda a, _: alpha + (1 - alpha) * _step(a.op("GreaterOrEqual", 0.0), a),
        ),
        "relu": (partial(Tensor.op, op_type="Relu"), lambda a, _: _step(a.op("Greater", 0.0), a)),
        "scaledtanh": (
            lambda a: alpha * (beta * a).op("Tanh"),
            lambda _, y: (alpha - y * y * (1 / alpha)) * beta,
        ),
        "sigmoid": (partial(Tensor.op, op_type="Sigmoid"), _sigmoid),
        "softplus": (partial(Tensor.op, op_type="Softplus"), lambda a, _: a.op("Sigmoid")),
        "softsign": (partial(Tensor.op, op_type="Softsign"), _softsign),
        "tanh": (partial(Tensor.op, op_type="Tanh"), _tanh),
        "thresholdedrelu": (
            partial(Tensor.op, op_type="ThresholdedRelu", alpha=alpha),
            lambda a, _: _step(a.op("Greater", alpha), a),
        ),
    }
    return Activation(*known[name]) if name in known else None


# Values of alpha and beta where the node gives none. The standard and onnxruntime differ in the others.
_DEFAULTS: dict[str, tuple[float, ...]] = {"elu": (1.0,), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01,)}
_N_PARAMETERS = {
    "affine": 2,
    "elu": 1,
    "hardsigmoid": 2,
    "leakyrelu": 1,
    "scaledtanh": 2,
    "thresholdedrelu": 1,
}


def activations(node: Node, usual: tuple[str, ...], n_directions: int) -> list[list[Activation]]:
    """Return the activations of each direction of a recurrent node, ``usual`` where it names none."""
    n_wanted = len(usual) * n_directions
    # The schema of RNN names two, whatever the direction.
    names = (node.attribute("activations") or list(usual) * n_directions)[:n_wanted]
    alphas, betas = ([*(node.attribute(f"activation_{key}") or [])] for key in ("alpha", "beta"))
    found = []
    for given in names:
        name = (given.decode() if isinstance(given, bytes) else given).lower()
        # The lists hold numbers for the activations that take one, in order.
        lists = [alphas, betas][: _N_PARAMETERS.get(name, 0)]
        numbers = [values.pop(0) for values in lists if values]
        numbers = [*numbers, *_DEFAULTS.get(name, ())[len(numbers) :]]
        if len(numbers) < len(lists):
            node.refuse(f"its activation {name!r} has no alpha or no beta; write them out")
        alpha, beta = (*numbers, 0.0, 0.0)[:2]
        activation = _activation(name, alpha, beta)
        if activation is None:
            node.refuse(f"its activation {name!r} is not known")
        found.append(activation)
    if len(found) != n_wanted:
        node.refuse(f"it has {len(found)} activations in place of {n_wanted}")
    return [found[k * len(usual) : (k + 1) * len(usual)] for k in range(n_directions)]
