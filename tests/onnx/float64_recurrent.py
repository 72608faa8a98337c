"""RNN, GRU and LSTM as the standard words them; onnx's reference covers a part of their attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from scipy import special

FUNCTIONS = {
    "affine": lambda x, a, b: a * x + b,
    "elu": lambda x, a, _: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "leakyrelu": lambda x, a, _: np.where(x >= 0, x, a * x),
    "relu": lambda x, *_: np.maximum(x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "sigmoid": lambda x, *_: special.expit(x),
    "softplus": lambda x, *_: np.logaddexp(x, 0),
    "softsign": lambda x, *_: x / (1 + np.abs(x)),
    "tanh": lambda x, *_: np.tanh(x),
    "thresholdedrelu": lambda x, a, _: np.where(x > a, x, 0),
}
DEFAULTS = {
    "affine": (None, None),
    "elu": (1.0,),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01,),
    "scaledtanh": (None, None),
    "thresholdedrelu": (None,),
}


class Recurrent(OpRun):
    usual: tuple[str, ...]
    n_states = 1

    def _run(self, x: np.ndarray, w: Any, r: Any, *rest: Any, **given: Any) -> tuple[np.ndarray, ...]:
        bias, lengths, *states, peepholes = [*rest, *[None] * (5 - len(rest))]
        if given["layout"]:
            x = x.swapaxes(0, 1)
            states = [None if s is None else s.swapaxes(0, 1) for s in states]
        steps, batch = x.shape[:2]
        hidden = r.shape[2]
        lengths = np.full(batch, steps) if lengths is None else lengths
        functions = self._functions(given, len(w))
        y = np.zeros((steps, len(w), batch, hidden), x.dtype)
        last = [np.zeros((len(w), batch, hidden), x.dtype) for _ in range(self.n_states)]
        for d in range(len(w)):
            turned = given["direction"] == "reverse" or d == 1
            b = np.zeros((2, w.shape[1])) if bias is None else bias[d].reshape(2, -1)
            p = np.zeros((3, hidden)) if peepholes is None else peepholes[d].reshape(3, -1)
            for n in range(batch):
                state = [np.zeros(hidden) if s is None else s[d, n] for s in states[: self.n_states]]
                for t in range(lengths[n]):
                    place = lengths[n] - 1 - t if turned else t
                    state = self.step(x[place, n], state, w[d], r[d], b, p, functions[d], given)
                    y[place, d, n] = state[0]
                for k, s in enumerate(state):
                    last[k][d, n] = s
        if given["layout"]:
            y, last = y.transpose(2, 0, 1, 3), [s.swapaxes(0, 1) for s in last]
        return (y, *last)[: len(self.onnx_node.output)]

    def _functions(self, given: dict[str, Any], n_directions: int) -> list[list[Any]]:
        alphas, betas = ([*(given[f"activation_{key}"] or [])] for key in ("alpha", "beta"))
        found = []
        for name in given["activations"] or self.usual * n_directions:
            name = name.lower()
            wanted = [*DEFAULTS.get(name, ())]
            for k, numbers in enumerate((alphas, betas)):
                if len(wanted) > k and numbers:
                    wanted[k] = numbers.pop(0)
            limit = given["clip"] or np.inf
            found.append(
                lambda x, f=FUNCTIONS[name], w=(*wanted, 0, 0), c=limit: f(np.clip(x, -c, c), w[0], w[1])
            )
        n = len(self.usual)
        return [found[k * n : (k + 1) * n] for k in range(n_directions)]

    def step(self, x: Any, states: Any, w: Any, r: Any, b: Any, p: Any, fs: Any, given: Any) -> list[Any]:
        raise NotImplementedError


class RNN(Recurrent):
    usual = ("Tanh",)

    def step(self, x: Any, states: Any, w: Any, r: Any, b: Any, p: Any, fs: Any, given: Any) -> list[Any]:
        return [fs[0](w @ x + r @ states[0] + b.sum(0))]


class GRU(Recurrent):
    usual = ("Sigmoid", "Tanh")

    def step(self, x: Any, states: Any, w: Any, r: Any, b: Any, p: Any, fs: Any, given: Any) -> list[Any]:
        (h,) = states
        (wz, wr, wn), (rz, rr, rn) = np.split(w @ x + b[0], 3), np.split(r, 3)
        bz, br, bn = np.split(b[1], 3)
        z, reset = fs[0](wz + rz @ h + bz), fs[0](wr + rr @ h + br)
        inner = reset * (rn @ h + bn) if given["linear_before_reset"] else rn @ (reset * h) + bn
        return [(1 - z) * fs[1](wn + inner) + z * h]


class LSTM(Recurrent):
    usual = ("Sigmoid", "Tanh", "Tanh")
    n_states = 2

    def step(self, x: Any, states: Any, w: Any, r: Any, b: Any, p: Any, fs: Any, given: Any) -> list[Any]:
        h, c = states
        i, o, f, j = np.split(w @ x + r @ h + b.sum(0), 4)
        i = fs[0](i + p[0] * c)
        f = 1 - i if given["input_forget"] else fs[0](f + p[2] * c)
        c = f * c + i * fs[1](j)
        return [fs[0](o + p[1] * c) * fs[2](c), c]


RECURRENT = [RNN, GRU, LSTM]
