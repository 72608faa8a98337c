from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from mollikit_onnx.loading import ModelFileError, load_model

from tests.onnx import models


@pytest.fixture
def external(tmp_path):
    """A model whose weight W is in the file weights.bin beside it."""
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(
        models.mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=100
    )
    assert (path.parent / "weights.bin").stat().st_size > 500
    return path


def relocate(path, location=None, length=None):
    """Rewrite where the external tensors claim to be."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and location is not None:
                entry.value = location
            if entry.key == "length" and length is not None:
                entry.value = str(length)
    path.write_bytes(model.SerializeToString())


def test_path_bytes_and_model_give_the_same(tmp_path):
    model = models.mlp()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert (
        load_model(path)
        == load_model(str(path))
        == load_model(path.read_bytes())
        == load_model(model)
        == model
    )


def test_external_data_comes_inside(external):
    for loaded, made in zip(
        load_model(external).graph.initializer, models.mlp().graph.initializer, strict=True
    ):
        assert np.array_equal(onnx.numpy_helper.to_array(loaded), onnx.numpy_helper.to_array(made))


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"no file '.*nowhere\.onnx'.*check the path"):
        load_model(tmp_path / "nowhere.onnx")


def test_folder(tmp_path):
    with pytest.raises(ModelFileError, match="is a folder"):
        load_model(tmp_path)


def test_unreadable_name():
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model("x" * 5000)


def test_empty_file(tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelFileError, match=r"empty\.onnx' is empty"):
        load_model(tmp_path / "empty.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"This is a text file, not a model.\n" * 20, "not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX model"),
    ],
)
def test_other_kinds_of_file(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_random_bytes_never_pass():
    rng = np.random.default_rng(0)
    for _ in range(300):
        with pytest.raises(ModelFileError, match="the bytes given"):
            load_model(rng.bytes(int(rng.integers(0, 200))))


def test_a_file_cut_anywhere_is_refused():
    content = models.mlp().SerializeToString()
    for length in range(len(content)):
        with pytest.raises(ModelFileError):
            load_model(content[:length])


def test_external_data_missing(external):
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match=r"needs the external data file 'weights\.bin'.*put it beside"):
        load_model(external)


def test_more_than_2_gb_of_external_data_missing(external):
    (external.parent / "weights.bin").unlink()
    relocate(external, length=3 * 10**9)
    with pytest.raises(ModelFileError, match=r"needs the external data file 'weights\.bin'"):
        load_model(external)


def test_more_than_2_gb_of_external_data_is_refused_before_it_is_read(external):
    os.truncate(external.parent / "weights.bin", 3 * 10**9)  # sparse
    relocate(external, length=3 * 10**9)
    with pytest.raises(ModelFileError, match="limited to 2 GB"):
        load_model(external)


def test_external_data_too_short(external):
    os.truncate(external.parent / "weights.bin", 7)
    with pytest.raises(ModelFileError, match="exceeds"):
        load_model(external)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "/etc/hostname", ""])
def test_external_data_outside_the_folder(external, location):
    (external.parent / "weights.bin").rename(external.parent.parent / "weights.bin")
    relocate(external, location=location)
    with pytest.raises(ModelFileError, match="outside its folder"):
        load_model(external)


def test_external_data_by_a_link_out_of_the_folder(external):
    outside = external.parent.parent / "secret.bin"
    (external.parent / "weights.bin").rename(outside)
    (external.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(ModelFileError, match="outside its folder"):
        load_model(external)


def test_external_data_in_an_attribute_outside_the_folder(external):
    """Not an initializer, so this one is onnx's own reader's to refuse."""
    model = models.mlp()
    constant = onnx.helper.make_node(
        "Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.zeros(4, np.float32), "c")
    )
    tensor = constant.attribute[0].t
    onnx.external_data_helper.set_external_data(tensor, "../secret.bin")
    tensor.ClearField("raw_data")
    model.graph.node.append(constant)
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"cannot be used.*inside the model's folder"):
        load_model(external)


def test_external_data_without_a_folder(external):
    with pytest.raises(ModelFileError, match="give the path"):
        load_model(external.read_bytes())
    with pytest.raises(ModelFileError, match="give the path"):
        load_model(onnx.load(external, load_external_data=False))
