from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onnx import ModelProto, TensorProto, ValueInfoProto, external_data_helper

from mollikit.atomic import replacing
from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.tensor import FLOATS
from mollikit_onnx.loading import external_range, load_structure
from mollikit_onnx.reverse import vjp

# Data that onnxruntime may map into memory begins at a multiple of this.
_ALIGNMENT = 4096
# Weights from this size on leave a model that would be larger than a message of protobuf can be.
_WORTH_MOVING = 1024
_LARGEST_INSIDE = 2**31 - 2**24


@dataclass(frozen=True)
class WrittenGradient:
    """A gradient model on disk.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Each with its type, such as ``"image float[N,3,224,224]"``.
    n_operators, n_forward_operators : int
        Operators of the gradient model, which computes the forward outputs too, and of the model itself.
    opset : int
    files : tuple of Path
        The model, and the data file written beside it where there is one.
    shared : tuple of str
        Data files of the model beside it whose weights the gradient uses where they are.
    n_bytes : int
        Of the files.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    n_operators: int
    n_forward_operators: int
    opset: int
    files: tuple[Path, ...]
    shared: tuple[str, ...]
    n_bytes: int


def write_vjp(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    wrt: Sequence[str] = (),
    of: Sequence[str] = (),
    opset: int | None = None,
    straight_through: bool = False,
) -> WrittenGradient:
    """Write the gradient of a model file; weights that the model keeps in data files are never read whole.

    In the folder of the model the gradient shares its data files; in another, the weights that it needs are
    copied, piece by piece, into one file ``<out>.data``. Each file appears whole or not at all.

    Parameters
    ----------
    model : path
        Not changed; of any size, above 2 GB with its weights in data files.
    out : path
        The file to be written; one that exists is replaced.
    wrt, of : sequence of str
        As in `vjp`; by default every input and every output of floats.
    opset, straight_through
        As in `vjp`.

    Raises
    ------
    ModelFileError
        The model cannot be read, or asks for data outside its folder.
    ModelError
        As in `vjp`.
    OSError
        ``out`` cannot be written.
    """
    source, target = Path(model), Path(out)
    if target.resolve() == source.resolve():
        raise ModelError(f"{os.fspath(target)!r} is the model itself: name another file for its gradient")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{os.fspath(target)!r}: there is no folder {os.fspath(target.parent)!r}")
    structure = load_structure(source)
    weights = {tensor.name for tensor in structure.graph.initializer}
    asked = list(wrt) or _floats(value for value in structure.graph.input if value.name not in weights)
    result = vjp(
        structure,
        asked,
        list(of) or _floats(structure.graph.output),
        opset=opset,
        straight_through=straight_through,
    )
    return _written(result, len(structure.graph.node), source, target)


def _floats(values: Iterable[ValueInfoProto]) -> list[str]:
    return [value.name for value in values if value.type.tensor_type.elem_type in FLOATS]


def _written(result: ModelProto, n_forward: int, source: Path, target: Path) -> WrittenGradient:
    external = [t for t in result.graph.initializer if external_data_helper.uses_external_data(t)]
    beside = source.parent.resolve() == target.parent.resolve()
    moved = [] if beside else external
    if sum(len(t.raw_data) for t in result.graph.initializer) > _LARGEST_INSIDE:
        moved = [*moved, *(t for t in result.graph.initializer if len(t.raw_data) >= _WORTH_MOVING)]
    shared = sorted({_location(t) for t in external}) if beside else []
    data = target.with_name(f"{target.name}.data")
    with ExitStack() as stack:
        # The model appears after its data.
        file = stack.enter_context(replacing(target))
        if moved:
            store = stack.enter_context(replacing(data))
            for tensor in moved:
                _move(tensor, source, store, data.name)
        file.write(result.SerializeToString())
    files = (target, data) if moved else (target,)
    return WrittenGradient(
        inputs=tuple(map(_described, result.graph.input)),
        outputs=tuple(map(_described, result.graph.output)),
        n_operators=len(result.graph.node),
        n_forward_operators=n_forward,
        opset=next(o.version for o in result.opset_import if not o.domain),
        files=files,
        shared=tuple(shared),
        n_bytes=sum(path.stat().st_size for path in files),
    )


def _location(tensor: TensorProto) -> str:
    return str(next(entry.value for entry in tensor.external_data if entry.key == "location"))


def _move(tensor: TensorProto, source: Path, store: IO[bytes], name: str) -> None:
    """Append the data of a tensor to a data file, and let the tensor point there."""
    begin = -(-store.tell() // _ALIGNMENT) * _ALIGNMENT
    store.seek(begin)
    if external_data_helper.uses_external_data(tensor):
        path, offset, length = external_range(tensor, os.fspath(source), source.parent)
        with path.open("rb") as file:
            file.seek(offset)
            _copy(file, store, length)
    else:
        length = len(tensor.raw_data)
        store.write(tensor.raw_data)
    tensor.raw_data = b""
    external_data_helper.set_external_data(tensor, name, begin, length)
    tensor.ClearField("raw_data")


def _copy(file: IO[bytes], store: IO[bytes], length: int) -> None:
    while length:
        piece = file.read(min(length, 2**24))
        store.write(piece)
        length -= len(piece)


def _described(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ",".join(
        d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in kind.shape.dim
    )
    shape = f"[{dims}]" if kind.HasField("shape") else "[...]"
    name = TensorProto.DataType.Name(kind.elem_type).lower()
    return f"{value.name} {name}{shape}"
