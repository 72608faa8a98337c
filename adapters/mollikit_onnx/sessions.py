from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import onnx
import onnxruntime as ort

from mollikit.oracles import Array
from mollikit_onnx.normal_form import HIGHEST_IR, HIGHEST_OPSET
from mollikit_onnx.providers import Provider, create_session
from mollikit_onnx.pruning import pruned
from mollikit_onnx.reverse import vjp
from mollikit_onnx.selection import SELECTED, select_in_graph
from mollikit_onnx.signature import Port

Options: TypeAlias = ort.SessionOptions | Callable[[], ort.SessionOptions] | None


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

    def session(self, model: bytes) -> ort.InferenceSession:
        """Create a session of any graph on the blueprint's providers."""
        options = self.options() if callable(self.options) else self.options
        return create_session(model, self.providers, options)


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

    def gradients(self, feed: Mapping[str, Array]) -> list[Array]:
        """Return the gradients by `wrt`, and last the selected values where they were asked for."""
        return _run(self.gradient, self._wanted(), feed)

    @property
    def forward(self) -> ort.InferenceSession:
        """The session of the model itself, without the outputs that nobody asks for."""
        if self._forward is None:
            with self._lock:
                if self._forward is None:
                    output = self.blueprint.output.name
                    model = onnx.load_model_from_string(self.blueprint.model)
                    wanted = pruned(_runnable(model, output), [output])
                    self._forward = self.blueprint.session(wanted.SerializeToString())
        return self._forward

    @property
    def gradient(self) -> ort.InferenceSession:
        """The session of the gradient alone, with the target selected inside."""
        if self._gradient is None:
            with self._lock:
                if self._gradient is None:
                    output = self.blueprint.output
                    model = onnx.load_model_from_string(self.blueprint.model)
                    differentiated = vjp(model, wrt=list(self.blueprint.wrt), of=[output.name])
                    wanted = pruned(select_in_graph(differentiated, output), self._wanted())
                    self._gradient = self.blueprint.session(wanted.SerializeToString())
        return self._gradient

    def _wanted(self) -> list[str]:
        names = [f"{name}.gradient" for name in self.blueprint.wrt]
        return [*names, SELECTED] if self.blueprint.values else names


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


def digest(model: bytes) -> str:
    """Sha256 of a model, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def _run(session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
    try:
        outputs: list[Array] = session.run(names, feed)
    except Exception as error:
        if "allocate memory" in str(error) or "bad_alloc" in str(error) or "bad allocation" in str(error):
            rows = len(next(iter(feed.values())))
            raise MemoryError(f"ONNX Runtime found no memory for a batch of {rows}: {error}") from error
        raise
    return outputs
