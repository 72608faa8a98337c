from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mollikit_onnx.rules import Node, Tensor

Activation = Callable[[Tensor], Tensor]
# By its name in lower case how many of alpha and beta an activation takes, and the function.
_KNOWN: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "affine": (2, lambda a, alpha, beta: alpha * a + beta),
    "elu": (1, partial(Tensor.op, op_type="Elu")),
    "hardsigmoid": (2, partial(Tensor.op, op_type="HardSigmoid")),
    "leakyrelu": (1, partial(Tensor.op, op_type="LeakyRelu")),
    "relu": (0, partial(Tensor.op, op_type="Relu")),
    "scaledtanh": (2, lambda a, alpha, beta: alpha * (beta * a).op("Tanh")),
    "sigmoid": (0, partial(Tensor.op, op_type="Sigmoid")),
    "softplus": (0, partial(Tensor.op, op_type="Softplus")),
    "softsign": (0, partial(Tensor.op, op_type="Softsign")),
    "tanh": (0, partial(Tensor.op, op_type="Tanh")),
    "thresholdedrelu": (1, partial(Tensor.op, op_type="ThresholdedRelu")),
}
# Values of alpha and beta where the node gives none. The standard and onnxruntime differ in the others.
_DEFAULTS: dict[str, tuple[float, ...]] = {"elu": (1.0,), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01,)}


def activations(node: Node, usual: tuple[str, ...], n_directions: int) -> list[list[Activation]]:
    """Return the activations of each direction of a recurrent node, ``usual`` where it names none."""
    n_wanted = len(usual) * n_directions
    # The schema of RNN names two, whatever the direction.
    names = (node.attribute("activations") or list(usual) * n_directions)[:n_wanted]
    alphas, betas = ([*(node.attribute(f"activation_{key}") or [])] for key in ("alpha", "beta"))
    found: list[Activation] = []
    for given in names:
        name = (given.decode() if isinstance(given, bytes) else given).lower()
        if name not in _KNOWN:
            node.refuse(f"its activation {name!r} is not known")
        n_numbers, function = _KNOWN[name]
        # The lists hold numbers for the activations that take one, in order.
        lists = [alphas, betas][:n_numbers]
        numbers = [values.pop(0) for values in lists if values]
        numbers = [*numbers, *_DEFAULTS.get(name, ())[len(numbers) :]]
        if len(numbers) < n_numbers:
            node.refuse(f"its activation {name!r} has no alpha or no beta; write them out")
        found.append(partial(function, **dict(zip(("alpha", "beta"), numbers, strict=False))))
    if len(found) != n_wanted:
        node.refuse(f"it has {len(found)} activations in place of {n_wanted}")
    return [found[k * len(usual) : (k + 1) * len(usual)] for k in range(n_directions)]
