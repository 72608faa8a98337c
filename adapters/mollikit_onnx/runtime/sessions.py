from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnxruntime as ort

from mollikit.oracles import Array
from mollikit_onnx.graphs.pruning import pruned
from mollikit_onnx.normal_form.normal_form import HIGHEST_IR, HIGHEST_OPSET
from mollikit_onnx.resident.block import Gradient, block_graph
from mollikit_onnx.resident.design import Design
from mollikit_onnx.reverse import vjp
from mollikit_onnx.runtime.binding import is_bound, run_bound, shape_of
from mollikit_onnx.runtime.providers import Provider, create_session
from mollikit_onnx.runtime.repetition import copy_of, repeated
from mollikit_onnx.runtime.selection import COORDINATES, SELECTED, select_in_graph, selection
from mollikit_onnx.runtime.signature import Port
from mollikit_onnx.runtime.weights import learnt, with_overridable, without_defaults

Options: TypeAlias = ort.SessionOptions | Callable[[], ort.SessionOptions] | None

# Sessions of several targets that are kept, by their number, and of blocks: each holds the weights.
_KEPT = 2
_KEPT_BLOCKS = 4


@dataclass(frozen=True)
class Blueprint:
    """All that a process needs to build an oracle's sessions; two of the same content are equal."""

    model: bytes = field(compare=False, repr=False)
    digest: str  # sha256 of the model
    wrt: tuple[str, ...]
    output: Port
    values: bool
    providers: tuple[Provider, ...] = field(hash=False)
    options: Options
    straight_through: bool = False
    overridden: tuple[str, ...] = ()  # weights that come with each run
    folder: str | None = None  # of the data files that hold large weights

    def session(self, model: bytes) -> ort.InferenceSession:
        """Create a session of any graph on the blueprint's providers."""
        options = self.options() if callable(self.options) else self.options
        return create_session(model, self.providers, options, self.folder)


class Sessions:
    """The forward and the gradient session of a model, each built on its first use, by one thread.

    Pickled, it travels as its blueprint. A process that unpickles the same blueprint again gets the
    sessions that it has.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self._lock = threading.Lock()
        self._forward: ort.InferenceSession | None = None
        self._gradient: ort.InferenceSession | None = None
        self._selection: ort.InferenceSession | None = None
        self._several: dict[int, ort.InferenceSession] = {}
        self._blocks: dict[Design, ort.InferenceSession] = {}
        self._weights: Mapping[str, Array] | None = None
        self._overriding: dict[tuple[str, ...], Sessions] = {}

    def __reduce__(self) -> tuple[Callable[[Blueprint], Sessions], tuple[Blueprint]]:
        if isinstance(self.blueprint.options, ort.SessionOptions):
            raise TypeError(
                "ONNX Runtime's SessionOptions cannot be sent to another process: give session_options as a "
                "module-level function that returns them"
            )
        return _sessions_of_this_process, (self.blueprint,)

    def outputs(self, feed: Mapping[str, Array]) -> Array:
        """Return the explained output for a batch of inputs."""
        (output,) = _run(self.forward, [self.blueprint.output.name], feed)
        return output

    def selected(self, outputs: ort.OrtValue, where: Array) -> ort.OrtValue:
        """Return the values at coordinates of outputs that lie on a device."""
        if self._selection is None:
            with self._lock:
                if self._selection is None:
                    self._selection = self._session(selection(self.blueprint.output))
        feed = {self.blueprint.output.name: outputs, COORDINATES: where}
        (values,) = _run(self._selection, [SELECTED], feed)
        return values

    def gradients(self, feed: Mapping[str, Array]) -> list[Array]:
        """Return the gradients by `wrt`, and last the selected values where they were asked for."""
        return _run(self.gradient, self._wanted(), feed)

    def gradients_of(self, count: int, feed: Mapping[str, Array]) -> list[list[Array]]:
        """Return `gradients` of each of several targets, with copies of the coordinates in the feed."""
        names = self._wanted()
        found = _run(self.several(count), [copy_of(name, k) for k in range(count) for name in names], feed)
        return [found[k * len(names) : (k + 1) * len(names)] for k in range(count)]

    def moments(self, design: Design, feed: Mapping[str, Array], rows: int) -> list[Array]:
        """Return what a block of this design gives, which takes some of the feed."""
        session = self.block(design)
        taken = {port.name: feed[port.name] for port in session.get_inputs()}
        return _run(session, [port.name for port in session.get_outputs()], taken, rows)

    @property
    def weights(self) -> Mapping[str, Array]:
        """Weights by name that the explained output depends on, read-only."""
        if self._weights is None:
            with self._lock:
                if self._weights is None:
                    model = onnx.load_model_from_string(self.blueprint.model)
                    self._weights = learnt(model, self.blueprint.output.name, self.blueprint.folder)
        return self._weights

    def overriding(self, names: tuple[str, ...]) -> Sessions:
        """Return sessions of the same model that take these weights with each run; the latest are kept."""
        with self._lock:
            sessions = self._overriding.pop(names, None)
            kept = list(self._overriding.items())[1 - _KEPT :]
            self._overriding = {
                **dict(kept),
                names: sessions or Sessions(replace(self.blueprint, overridden=names)),
            }
            return self._overriding[names]

    def reweighted(self, weights: Mapping[str, Array]) -> ReweightedSessions:
        """Return the same model with other arrays in the place of some of its weights."""
        return ReweightedSessions(self, weights)

    @property
    def forward(self) -> ort.InferenceSession:
        """The session of the model itself, without the outputs that nobody asks for."""
        if self._forward is None:
            with self._lock:
                if self._forward is None:
                    output = self.blueprint.output.name
                    wanted = pruned(_runnable(self._model(), output), [output])
                    self._forward = self._session(wanted)
        return self._forward

    @property
    def gradient(self) -> ort.InferenceSession:
        """The session of the gradient alone, with the target selected inside."""
        if self._gradient is None:
            with self._lock:
                if self._gradient is None:
                    self._gradient = self._session(self._gradient_graph())
        return self._gradient

    def several(self, count: int) -> ort.InferenceSession:
        """The session of the gradients of so many targets, after one forward pass."""
        session = self._several.get(count)
        if session is None:
            with self._lock:
                session = self._several.get(count)
                if session is None:
                    session = self._session(repeated(self._gradient_graph(), COORDINATES, count))
                    kept = list(self._several.items())[1 - _KEPT :]
                    self._several = {**dict(kept), count: session}
        return session

    def block(self, design: Design) -> ort.InferenceSession:
        """The session that draws, moves, differentiates and reduces blocks of this design."""
        session = self._blocks.get(design)
        if session is None:
            with self._lock:
                session = self._blocks.get(design)
                if session is None:
                    session = self._session(self._block_graph(design))
                    kept = list(self._blocks.items())[1 - _KEPT_BLOCKS :]
                    self._blocks = {**dict(kept), design: session}
        return session

    def _block_graph(self, design: Design) -> onnx.ModelProto:
        model, count = self._gradient_graph(), design.targets
        names = [f"{leaf.name}.gradient" for leaf in design.leaves]
        names += [SELECTED] if self.blueprint.values else []
        coordinates, outputs = [COORDINATES], [names]
        if count > 1:
            model = repeated(model, COORDINATES, count)
            coordinates = [copy_of(COORDINATES, k) for k in range(count)]
            outputs = [[copy_of(name, k) for name in names] for k in range(count)]
        return block_graph(Gradient(model, coordinates, outputs, self.blueprint.overridden), design)

    def _gradient_graph(self) -> onnx.ModelProto:
        output = self.blueprint.output
        wrt, through = list(self.blueprint.wrt), self.blueprint.straight_through
        differentiated = vjp(self._model(), wrt, [output.name], straight_through=through)
        output.check_declared(next(info for info in differentiated.graph.output if info.name == output.name))
        return pruned(select_in_graph(differentiated, output), self._wanted())

    def _model(self) -> onnx.ModelProto:
        model = onnx.load_model_from_string(self.blueprint.model)
        with_overridable(model, self.blueprint.overridden)
        return model

    def _session(self, graph: onnx.ModelProto) -> ort.InferenceSession:
        without_defaults(graph, self.blueprint.overridden)
        return self.blueprint.session(graph.SerializeToString())

    def _wanted(self) -> list[str]:
        names = [f"{name}.gradient" for name in self.blueprint.wrt]
        return [*names, SELECTED] if self.blueprint.values else names


class ReweightedSessions:
    """The sessions of a model with arrays of one's own in the place of some of its weights."""

    def __init__(self, sessions: Sessions, weights: Mapping[str, Array]) -> None:
        self.blueprint = sessions.blueprint
        self._constant, self._replaced = sessions, dict(weights)
        self._sessions = sessions.overriding(tuple(sorted(weights)))

    def outputs(self, feed: Mapping[str, Array]) -> Array:
        """Return the explained output for a batch of inputs."""
        return self._sessions.outputs({**feed, **self._replaced})

    def gradients(self, feed: Mapping[str, Array]) -> list[Array]:
        """Return the gradients by `wrt`, and last the selected values where they were asked for."""
        return self._sessions.gradients({**feed, **self._replaced})

    def gradients_of(self, count: int, feed: Mapping[str, Array]) -> list[list[Array]]:
        """Return `gradients` for each of several targets."""
        return self._sessions.gradients_of(count, {**feed, **self._replaced})

    def selected(self, outputs: ort.OrtValue, where: Array) -> ort.OrtValue:
        """Return the values at coordinates of outputs that lie on a device."""
        return self._constant.selected(outputs, where)

    def moments(self, design: Design, feed: Mapping[str, Array], rows: int) -> list[Array]:
        """Return what a block of this design gives."""
        return self._sessions.moments(design, {**feed, **self._replaced}, rows)

    @property
    def weights(self) -> Mapping[str, Array]:
        """Weights of the model by name, as they are here."""
        return {**self._constant.weights, **self._replaced}

    def reweighted(self, weights: Mapping[str, Array]) -> ReweightedSessions:
        """Return the same sessions with further weights replaced."""
        return ReweightedSessions(self._constant, {**self._replaced, **weights})


def _sessions_of_this_process(blueprint: Blueprint) -> Sessions:
    return _sessions_of(os.getpid(), blueprint)


@lru_cache(maxsize=4)
def _sessions_of(process: int, blueprint: Blueprint) -> Sessions:
    # By process: the sessions that a forked one inherits have lost their threads.
    return Sessions(blueprint)


def _runnable(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """Return the model, or one of older versions where it is newer than what ONNX Runtime reads."""
    opsets = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    if model.ir_version <= HIGHEST_IR and max(opsets, default=0) <= HIGHEST_OPSET:
        return model
    # The gradient of an output by itself: vjp brings the model to known versions and needs no rule.
    lowered = vjp(model, wrt=[output], of=[output])
    (cotangent,) = [info for info in lowered.graph.input if info.name == f"{output}.cotangent"]
    lowered.graph.input.remove(cotangent)
    return lowered


def digest(model: bytes, data: Iterable[Path]) -> str:
    """Sha256 of a model and of its data files in turn, in hexadecimal."""
    content = hashlib.sha256(model)
    for path in data:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: content)
    return content.hexdigest()


def _run(
    session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, Array], rows: int | None = None
) -> list[Array]:
    try:
        outputs: list[Any] = run_bound(session, names, feed) if is_bound(feed) else session.run(names, feed)
    except Exception as error:
        if "allocate memory" in str(error) or "bad_alloc" in str(error) or "bad allocation" in str(error):
            rows = rows or shape_of(next(iter(feed.values())))[0]
            raise MemoryError(f"ONNX Runtime found no memory for a batch of {rows}: {error}") from error
        raise
    return outputs
