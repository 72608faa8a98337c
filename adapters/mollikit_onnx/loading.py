from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import checker, external_data_helper, helper, numpy_helper

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.pruning import all_nodes, subgraphs, without_weights
from mollikit_onnx.normal_form.folding import SMALL

# Elements in a byte.
_PACKED: dict[int, int] = {
    onnx.TensorProto.INT4: 2,
    onnx.TensorProto.UINT4: 2,
    onnx.TensorProto.FLOAT4E2M1: 2,
}
# From as many bytes on, an oracle leaves external data where they are: neither copied nor pickled.
LEFT_IN_FILES = 2**28
# Protobuf's limit on one message, and so on a model handed to ONNX Runtime in memory.
_LARGEST_MESSAGE = 2**31 - 1


class ModelFileError(ModelError):
    """A model that cannot be used; the message names the culprit and the mend."""


def load_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Load an ONNX model, its external data included, and refuse what cannot be a usable model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        A file, its content, or a model in memory (returned as it is, unchanged).

    Returns
    -------
    onnx.ModelProto
        The model with every weight inside.

    Raises
    ------
    ModelFileError
        The file is missing, empty, truncated or not ONNX; its external data is missing, too short or
        outside the model's folder; or model and data together exceed protobuf's 2 GB.

    Examples
    --------
    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
    ...                            'double (float[n, 2] x) => (float[n, 2] y) { y = Add(x, x) }')
    >>> load_model(model.SerializeToString()).graph.name
    'double'
    """
    if isinstance(source, onnx.ModelProto):
        return _with_data_inside(source, name="the model in memory", folder=None)
    if isinstance(source, bytes):
        return _with_data_inside(_parsed(source, "the bytes given"), name="the bytes given", folder=None)
    path = Path(source)
    return _with_data_inside(_read(path), name=f"{os.fspath(path)!r}", folder=path.parent)


def load_light(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
) -> tuple[onnx.ModelProto, Path | None]:
    """Load a model as `load_model` does, but leave large weights in their files where these are large.

    Returns
    -------
    model : onnx.ModelProto
    folder : Path or None
        Where the files lie, absolute; None where every weight is inside.
    """
    if isinstance(source, onnx.ModelProto | bytes):
        return load_model(source), None
    path = Path(source)
    model = load_structure(path)
    if sum(file.stat().st_size for file in data_files(model, path.parent)) >= LEFT_IN_FILES:
        return model, path.parent.absolute()
    return _with_data_inside(model, name=f"{os.fspath(path)!r}", folder=path.parent), None


def data_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the data files of a model that `load_structure` loaded, in order."""
    external = filter(external_data_helper.uses_external_data, model.graph.initializer)
    return sorted({external_path(tensor, "the model", folder) for tensor in external})


def array_of(tensor: onnx.TensorProto, folder: str | None) -> NDArray[Any]:
    """Return the elements of a tensor, mapped into memory where they lie in a data file."""
    if not external_data_helper.uses_external_data(tensor):
        array: NDArray[Any] = numpy_helper.to_array(tensor)
        return array
    path, begin, _ = external_range(tensor, "the model", Path(folder or "."))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(path, dtype, "r", begin, tuple(tensor.dims))


def load_structure(path: Path) -> onnx.ModelProto:
    """Load a model file, but leave large weights in their data files: they are checked, not read.

    Raises
    ------
    ModelFileError
        As in `load_model`, but for the limit of 2 GB.
    """
    model, name, folder = _read(path), f"{os.fspath(path)!r}", path.parent
    small = [*_inside(model.graph.node), *(t for function in model.functions for t in _inside(function.node))]
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            small.append(tensor)
        elif external_data_helper.uses_external_data(tensor):
            external_range(tensor, name, folder)
    try:
        for tensor in filter(external_data_helper.uses_external_data, small):
            external_data_helper.load_external_data_for_tensor(tensor, os.fspath(folder))
    except (checker.ValidationError, ValueError, OSError) as error:
        raise _unusable(name, error) from error
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: its weights, and those inside its nodes."""
    yield from graph.initializer
    yield from _inside(graph.node)


def _inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor in the attributes of nodes, and in the graphs there."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _read(path: Path) -> onnx.ModelProto:
    name = f"{os.fspath(path)!r}"
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise ModelFileError(f"{name} is a folder: give the path of the .onnx file itself") from None
    except FileNotFoundError:
        raise ModelFileError(
            f"There is no file {name} (looked in {os.fspath(path.parent.absolute())!r}): check the path"
        ) from None
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {error.strerror}") from error
    return _parsed(content, name)


def _parsed(content: bytes, name: str) -> onnx.ModelProto:
    if not content:
        raise ModelFileError(f"{name} is empty: download or export the model again")
    if content.startswith(b"PK\x03\x04"):
        raise ModelFileError(
            f"{name} is a zip archive, not an ONNX model (PyTorch and Keras files are archives): "
            "unpack it, or export that model to ONNX"
        )
    if content.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{name} is a Git LFS pointer, not the model: run 'git lfs pull'")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelFileError(
            f"{name} ({len(content)} bytes) is not an ONNX model, or is truncated: "
            "download or export it again"
        ) from None
    if not model.opset_import or not (model.graph.node or model.graph.output):
        raise ModelFileError(
            f"{name} ({len(content)} bytes) holds no complete ONNX model (a graph and its operator sets): "
            "it is truncated or another kind of file; download or export it again"
        )
    if not _legible(model):
        raise ModelFileError(f"{name} is damaged: a name in it is no text; download or export it again")
    return model


def _legible(model: onnx.ModelProto) -> bool:
    """Whether all names are text: protobuf looks when one is first read, and then raises or gives bytes."""
    graph = model.graph
    try:
        without_weights(model)
        texts = [tensor.name for tensor in _tensors(graph)]
        for node in (*all_nodes(graph), *(node for f in model.functions for node in f.node)):
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
        for value in (*graph.input, *graph.output, *graph.value_info):
            texts += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    except UnicodeDecodeError:
        return False
    return all(isinstance(text, str) for text in texts)


def _with_data_inside(model: onnx.ModelProto, *, name: str, folder: Path | None) -> onnx.ModelProto:
    external = list(filter(external_data_helper.uses_external_data, model.graph.initializer))
    if external and folder is None:
        raise ModelFileError(
            f"{name} keeps the data of {external[0].name!r} in another file, and its folder is not known: "
            "give the path of the model file"
        )
    if folder is not None:
        size = sum(_external_size(tensor, name, folder) for tensor in external)
        if size > _LARGEST_MESSAGE:
            raise _too_large(name, f"{size / 1e9:.1f} GB of external data")
        try:
            # onnx's own reader refuses links and ranges beyond the end of the data, and finds the
            # tensors inside attributes and subgraphs too.
            external_data_helper.load_external_data_for_model(model, os.fspath(folder))
        except (checker.ValidationError, ValueError, OSError) as error:
            raise _unusable(name, error) from error
        if not external:
            # What was read from one message is no larger.
            return model
    try:
        if model.ByteSize() > _LARGEST_MESSAGE:
            raise _too_large(name, f"{model.ByteSize() / 1e9:.1f} GB")
    except EncodeError:
        raise _too_large(name, "more than 2 GB") from None
    return model


def external_path(tensor: onnx.TensorProto, name: str, folder: Path) -> Path:
    """Return the data file of a tensor, which lies in the model's folder, links followed.

    Raises
    ------
    ModelFileError
        It does not, or is missing.
    """
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    path: Path = folder / location
    if not location or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelFileError(
            f"{name} asks for data outside its folder: tensor {tensor.name!r} at {location!r}. If you trust "
            "the model, copy the data file into its folder and correct the location"
        )
    if not path.is_file():
        raise ModelFileError(
            f"{name} needs the external data file {location!r} (for tensor {tensor.name!r}), which is not in "
            f"{os.fspath(folder)!r}: put it beside the model"
        )
    return path


def external_range(tensor: onnx.TensorProto, name: str, folder: Path) -> tuple[Path, int, int]:
    """Return the data file of a large tensor, and where in it the tensor begins and how long it is.

    Raises
    ------
    ModelFileError
        The file is not there, or does not hold what the tensor claims.
    """
    path = external_path(tensor, name, folder)
    info = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = (info.get(key, "0") for key in ("offset", "length"))
    width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    claimed = math.prod(tensor.dims) * width
    if tensor.data_type in _PACKED:
        claimed = -(-math.prod(tensor.dims) // _PACKED[tensor.data_type])
    begin = int(offset) if offset.isdecimal() else -1
    given = int(length) if length.isdecimal() and int(length) else claimed
    if begin < 0 or given != claimed or begin + claimed > path.stat().st_size:
        raise ModelFileError(
            f"{name}: tensor {tensor.name!r} of shape {tuple(tensor.dims)} needs {claimed} bytes, which the "
            f"file {path.name!r} of {path.stat().st_size} bytes does not hold at {offset} (length {length}): "
            "download or export the model again"
        )
    return path, begin, claimed


def _external_size(tensor: onnx.TensorProto, name: str, folder: Path) -> int:
    size = external_path(tensor, name, folder).stat().st_size
    length = {entry.key: entry.value for entry in tensor.external_data}.get("length", "")
    return int(length) if length.isdecimal() else size


def _unusable(name: str, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"The external data of {name} cannot be used: {error}. Keep whole, regular data files inside the "
        "model's folder"
    )


def _too_large(name: str, size: str) -> ModelFileError:
    return ModelFileError(
        f"{name} has {size}; a model with its weights inside, as the gradient needs it, is limited to 2 GB: "
        "store the weights in a data file, as float16, or take a part of the model"
    )
