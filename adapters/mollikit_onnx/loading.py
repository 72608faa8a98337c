from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import checker, external_data_helper

from mollikit_onnx.errors import ModelError

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
    return _with_data_inside(_parsed(content, name), name=name, folder=path.parent)


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
    return model


def _with_data_inside(model: onnx.ModelProto, *, name: str, folder: Path | None) -> onnx.ModelProto:
    external = [
        tensor for tensor in model.graph.initializer if external_data_helper.uses_external_data(tensor)
    ]
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
            raise ModelFileError(
                f"The external data of {name} cannot be used: {error}. Keep whole, regular data files "
                "inside the model's folder"
            ) from error
    try:
        if model.ByteSize() > _LARGEST_MESSAGE:
            raise _too_large(name, f"{model.ByteSize() / 1e9:.1f} GB")
    except EncodeError:
        raise _too_large(name, "more than 2 GB") from None
    return model


def _external_size(tensor: onnx.TensorProto, name: str, folder: Path) -> int:
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    path = folder / location
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
    length = info.get("length", "")
    return int(length) if length.isdecimal() else path.stat().st_size


def _too_large(name: str, size: str) -> ModelFileError:
    return ModelFileError(
        f"{name} has {size}; a model with its weights inside, as the gradient needs it, is limited to 2 GB: "
        "store the weights as float16, or take a part of the model"
    )
