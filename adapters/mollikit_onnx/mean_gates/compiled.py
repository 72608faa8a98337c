from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime as ort

from mollikit.oracles import Array
from mollikit.surrogates.forward_moments import ForwardMoments, Spread
from mollikit_onnx.mean_gates.linear_model import LinearModel, linear_model
from mollikit_onnx.runtime.sessions import Blueprint, Sessions

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_COMPILED: WeakKeyDictionary[Sessions, dict[tuple[_Shapes, float], Compiled]] = WeakKeyDictionary()
# For the shapes and priors asked for last: each holds the weights.
_KEPT = 4
_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Compiled:
    """A linear model with its two sessions, on the providers of the oracle it comes from."""

    model: LinearModel
    forward: ort.InferenceSession | None
    backward: ort.InferenceSession
    wrt: tuple[str, ...]
    cotangent: str
    row_shape: tuple[int, ...]

    def moments(self, feed: Mapping[str, Array], rows: int) -> ForwardMoments:
        """Average over the rows of one batch."""
        if self.forward is None:
            return ForwardMoments(rows, {}, {})
        names = [output.name for output in self.forward.get_outputs()]
        wanted = {port.name for port in self.forward.get_inputs()}
        values = self.forward.run(names, {name: value for name, value in feed.items() if name in wanted})
        found = {name: value.astype(np.float64) for name, value in zip(names, values, strict=True)}
        spreads = {
            spread.leaf: Spread(
                *(found[n] for n in (spread.mean, spread.squares, spread.leaf, spread.products))
            )
            for spread in self.model.spreads
        }
        return ForwardMoments(rows, {name: found[name] for name in self.model.means}, spreads)

    def gradients(
        self, moments: ForwardMoments, feed: Mapping[str, Array], where: tuple[int, ...]
    ) -> Sequence[Array]:
        """One backward pass through the linear model, of one element of the output."""
        names = [f"{name}.gradient" for name in self.wrt]
        return self.pulled_back(self.backward, names, moments, feed, where)

    def pulled_back(
        self,
        session: ort.InferenceSession,
        names: Sequence[str],
        moments: ForwardMoments,
        feed: Mapping[str, Array],
        where: tuple[int, ...],
    ) -> Sequence[Array]:
        """Outputs of a backward pass of one's own through the linear model."""
        cotangent = np.zeros(self.row_shape, np.float64)
        cotangent[where] = 1
        given = {**feed, self.cotangent: cotangent, **self.taken(moments)}
        results: list[Array] = session.run(list(names), cast(session, given))
        return results

    def taken(self, moments: ForwardMoments) -> dict[str, Array]:
        """What the linear model takes of averages."""
        taken = dict(moments.means)
        for names in self.model.spreads:
            seen = moments.spreads[names.leaf]
            variance = np.broadcast_to(seen.variance(moments.n), seen.squares.shape)
            taken |= {names.mean: seen.mean, names.squares: seen.squares, names.products: seen.products}
            taken[names.variance] = variance
        return taken


def cast(session: ort.InferenceSession, given: Mapping[str, Array]) -> dict[str, Array]:
    """What a session takes of some arrays, in its own types."""
    ports = {port.name: _dtype(port.type) for port in session.get_inputs()}
    return {name: np.asarray(given[name], dtype) for name, dtype in ports.items()}


def compiled(
    sessions: Sessions, shapes: Mapping[str, tuple[int, ...]], prior: float, row_shape: tuple[int, ...]
) -> Compiled:
    """Return the linear model for inputs of these shapes; the last ones asked for are kept."""
    key = (tuple(sorted(shapes.items())), prior)
    with _LOCK:
        known = _COMPILED.setdefault(sessions, {})
        found = known.pop(key, None) or _made(sessions.blueprint, shapes, prior, row_shape)
        for old in list(known)[: 1 - _KEPT]:
            del known[old]
        known[key] = found
        return found


def _made(
    blueprint: Blueprint, shapes: Mapping[str, tuple[int, ...]], prior: float, row_shape: tuple[int, ...]
) -> Compiled:
    proto, name = onnx.load_model_from_string(blueprint.model), blueprint.output.name
    linear = linear_model(proto, dict(shapes), blueprint.wrt, name, prior)
    # A model that is linear already has nothing to be averaged.
    nonlinear = bool(linear.forward.graph.output)
    forward = blueprint.session(linear.forward.SerializeToString()) if nonlinear else None
    backward = blueprint.session(linear.backward.SerializeToString())
    return Compiled(linear, forward, backward, blueprint.wrt, f"{name}.cotangent", row_shape)


def _dtype(kind: str) -> Any:
    names = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    return names.get(kind)
