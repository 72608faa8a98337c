"""The two exporters of PyTorch."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import onnx
import torch
from onnx import ModelProto

from tests.onnx.architectures.catalogue import ARCHITECTURES, Architecture


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporters warn of what they trace and of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _arguments(architecture: Architecture) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(x) for x in architecture.draw(0, batch=3).values())


@cache
def by_torchscript(name: str, opset: int) -> ModelProto:
    """The exporter that records one run (``dynamo=False``)."""
    architecture = ARCHITECTURES[name]
    buffer = io.BytesIO()
    dynamic = {key: architecture.axes(key) for key in architecture.inputs}
    with _quietly():
        torch.onnx.export(
            architecture.net(),
            _arguments(architecture),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=list(architecture.inputs),
            output_names=list(architecture.outputs),
            dynamic_axes=dynamic,
        )
    return onnx.load_from_string(buffer.getvalue())


@cache
def _captured(name: str) -> torch.export.ExportedProgram:
    architecture = ARCHITECTURES[name]
    axes = [architecture.axes(key) for key in architecture.inputs]
    dims = {symbol: torch.export.Dim.DYNAMIC for one in axes for symbol in one.values()}
    shapes = tuple({axis: dims[symbol] for axis, symbol in one.items()} for one in axes)
    with _quietly():
        return torch.export.export(architecture.net(), _arguments(architecture), dynamic_shapes=shapes)


@cache
def by_dynamo(name: str, opset: int) -> ModelProto:
    """The exporter that translates a captured program (``dynamo=True``)."""
    architecture = ARCHITECTURES[name]
    with _quietly():
        program = torch.onnx.export(
            _captured(name),
            dynamo=True,
            opset_version=opset,
            input_names=list(architecture.inputs),
            output_names=list(architecture.outputs),
            verbose=False,
        )
    return program.model_proto
