from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.sparse import coo_array

from mollikit.oracles import Array
from mollikit.surrogates.forward_moments import ForwardMoments
from mollikit.surrogates.ridges import Rectified
from mollikit_onnx.graphs.pruning import nodes_needed, pruned
from mollikit_onnx.mean_gates.compiled import Compiled, cast
from mollikit_onnx.mean_gates.estimator import AtInput
from mollikit_onnx.mean_gates.rectified import RectifiedLayer
from mollikit_onnx.reverse import vjp
from mollikit_onnx.runtime.sessions import Sessions

# Rows with fewer entries than this are kept without their zeros.
_SPARSE = 0.2
_What = tuple[bool | str, ...]
_KNOWN: WeakKeyDictionary[Compiled, dict[_What, ort.InferenceSession]] = WeakKeyDictionary()
_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class LinearForms:
    """What the linear model says of some rectified layers: their sources as forms of the input, and signals.

    Attributes
    ----------
    model : AtInput
        The linear model, and the input.
    moments : ForwardMoments
        The averages that make it linear.
    layers : sequence of RectifiedLayer
    feed_of : callable
        From rows (m, D) to what the model takes.
    """

    model: AtInput
    moments: ForwardMoments
    layers: Sequence[RectifiedLayer]
    feed_of: Callable[[Array], dict[str, Array]]

    def rectified(self, moving: NDArray[np.intp], base: Array) -> list[Rectified]:
        """The layers as functions of the input (D,): of its moving coordinates, where others do not count."""
        columns, clean = self._columns(moving, base)
        signals = self._signals()
        made = []
        for number, layer in enumerate(self.layers):
            order = layer.windows.ravel()
            shape = (clean[number].size, len(base))
            rows = _table([column[number] for column in columns], moving, shape)[order]
            offsets = clean[number]
            if not self._is_affine(layer):
                spread = self.moments.spreads[f"mean_gates/{layer.leaf}.leaf"]
                offsets = np.asarray(spread.mean, base.dtype).ravel()
            made.append(Rectified(rows, offsets[order], signals[layer.end]))
        return made

    def _columns(self, moving: NDArray[np.intp], base: Array) -> tuple[list[list[Any]], list[Array]]:
        """What a step of one adds to each source, by moving coordinate, without zeros; the clean sources."""
        sources = [layer.source for layer in self.layers]
        straight = self.model.linear.model.straight
        session = self._session((False, *sources), lambda: _narrow(straight, list(dict.fromkeys(sources))))
        ports = {port.name for port in session.get_inputs()}
        averages = cast(session, {**self.model.feed, **self.model.linear.taken(self.moments)})

        def run(point: Array) -> list[Array]:
            own = {name: value for name, value in self.feed_of(point[None]).items() if name in ports}
            return [value.ravel() for value in session.run(sources, {**averages, **own})]

        constant = run(np.zeros_like(base))
        columns = []
        for k in moving:
            impulse = np.zeros_like(base)
            impulse[k] = 1
            columns.append([_entries(a - b) for a, b in zip(run(impulse), constant, strict=True)])
        return columns, run(base)

    def _signals(self) -> dict[str, Array]:
        """The derivative of the output by each layer's end, in the linear model."""
        linear = self.model.linear
        of = linear.cotangent.removesuffix(".cotangent")
        itself = np.zeros(linear.row_shape)
        itself[self.model.where] = 1
        signals: dict[str, Array] = {of: itself.ravel()}
        ends = [end for end in dict.fromkeys(layer.end for layer in self.layers) if end != of]
        if ends:
            names, straight = [f"{end}.gradient" for end in ends], linear.model.straight
            session = self._session((True, *ends), lambda: pruned(vjp(straight, ends, [of]), names))
            found = linear.pulled_back(session, names, self.moments, self.model.feed, self.model.where)
            signals |= {end: value.ravel() for end, value in zip(ends, found, strict=True)}
        return signals

    def _session(self, key: _What, made: Callable[[], ModelProto]) -> ort.InferenceSession:
        """A session of a graph that is made once for each linear model."""
        sessions = self.model.oracle._sessions
        assert isinstance(sessions, Sessions)
        with _LOCK:
            known = _KNOWN.setdefault(self.model.linear, {})
            if key not in known:
                known[key] = sessions.blueprint.session(made().SerializeToString())
            return known[key]

    def _is_affine(self, layer: RectifiedLayer) -> bool:
        model = self.model.linear.model
        _, needed = nodes_needed(model.straight.graph.node, [layer.source])
        return needed.isdisjoint(model.averaged)


def _narrow(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The model with these outputs alone, and without the inputs that they do not need."""
    result = pruned(model, outputs)
    _, needed = nodes_needed(result.graph.node, outputs)
    kept = [value for value in result.graph.input if value.name in needed]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    return result


def _entries(column: Array) -> tuple[Array, Array]:
    places = np.flatnonzero(column)
    return places, column[places]


def _table(columns: Sequence[tuple[Array, Array]], moving: NDArray[np.intp], shape: tuple[int, int]) -> Any:
    """A matrix of this shape by its columns, sparse where most of it is zero."""
    values = np.concatenate([value for _, value in columns])
    places = np.concatenate([place for place, _ in columns])
    across = np.repeat(moving, [len(place) for place, _ in columns])
    table = coo_array((values, (places, across)), shape=shape).tocsr()
    return table if len(values) < _SPARSE * shape[0] * shape[1] else table.toarray()
