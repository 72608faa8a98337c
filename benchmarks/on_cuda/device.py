"""ONNX Runtime on one provider, and what its profile says about where each node ran."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from mollikit_onnx.runtime.providers import create_session
from onnx import ModelProto

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FLOATS = ("float", "double", "float16", "bfloat16")


@dataclass(frozen=True)
class Device:
    """A provider; TF32 rounds the factors of products and convolutions to 10 bits of mantissa."""

    provider: str = CUDA
    tf32: bool = False

    @property
    def name(self) -> str:
        """As OrtValue and torch call it."""
        return "cuda" if self.provider == CUDA else "cpu"

    def session(
        self, model: ModelProto, *, optimised: bool = True, profile: str | None = None
    ) -> ort.InferenceSession:
        """A session of one thread that has this provider, or an error."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        given: dict[str, Any] = {"use_tf32": str(int(self.tf32))} if self.provider == CUDA else {}
        return create_session(model.SerializeToString(), [(self.provider, given)], options)

    def bound(
        self, session: ort.InferenceSession, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> ort.IOBinding:
        """Inputs and outputs that lie on the device."""
        binding = session.io_binding()
        for name, array in asked(session, feeds).items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, self.name, 0))
        for name in names:
            binding.bind_output(name, self.name, 0)
        return binding


def asked(session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds that a session has inputs for."""
    names = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    return {name: array for name, array in feeds.items() if name in names}


@dataclass(frozen=True)
class Ran:
    """A node as it ran: memory copies between the devices are nodes too."""

    operator: str
    provider: str
    outputs: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def elements(self) -> int:
        """Of the largest output."""
        return max((math.prod(shape) for _, shape in self.outputs), default=0)

    @property
    def makes_floats(self) -> bool:
        """Whether an output is of floats."""
        return any(kind in _FLOATS for kind, _ in self.outputs)


def profiled(
    device: Device, model: ModelProto, feeds: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[ort.InferenceSession, list[np.ndarray], list[Ran]]:
    """Run a model once: its session, its outputs, and its nodes in the order in which they ran."""
    with tempfile.TemporaryDirectory() as folder:
        session = device.session(model, profile=f"{folder}/run")
        try:
            outputs = session.run(list(names), asked(session, feeds))
        finally:
            file = Path(session.end_profiling())
        return session, outputs, list(_nodes(json.loads(file.read_text())))


def _nodes(events: Iterable[Mapping[str, Any]]) -> Iterable[Ran]:
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            about = event["args"]
            made = about.get("output_type_shape", ())
            outputs = tuple((kind, tuple(shape)) for output in made for kind, shape in output.items())
            yield Ran(about["op_name"], about["provider"], outputs)


def on_the_cpu(nodes: Iterable[Ran], device: Device) -> list[Ran]:
    """Nodes that ran on another provider than the device's."""
    return [node for node in nodes if node.provider != device.provider]
