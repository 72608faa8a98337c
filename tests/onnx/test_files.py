"""Gradients of model files: external data shared or copied, never read whole; hostile files refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from mollikit_onnx import ModelError, OnnxOracle, vjp, write_vjp
from mollikit_onnx.loading import ModelFileError, load_model
from mollikit_onnx.normal_form.normal_form import DEEPEST_GRAPH
from onnx import TensorProto, helper

from tests.onnx import models
from tests.onnx.gradient_checks import run_onnxruntime

X = np.random.default_rng(0).standard_normal((3, 80)).astype(np.float32)


def wide() -> onnx.ModelProto:
    """Tanh(x W + b) V: one weight large enough to stay in its file, others small."""
    rng = np.random.default_rng(0)
    weights = {"W": (80, 70), "b": (70,), "V": (70, 2)}
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "V"], ["y"]),
    ]
    arrays = {n: rng.standard_normal(s).astype(np.float32) / 5 for n, s in weights.items()}
    ports = [("x", TensorProto.FLOAT, ["n", 80])], [("y", TensorProto.FLOAT, ["n", 2])]
    return models.model(nodes, *ports, arrays)


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """The model with every weight in weights.bin."""
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(wide(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def run(path: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X, "y.cotangent": np.ones((3, 2), np.float32)})


def expected() -> list[np.ndarray]:
    feeds = {"x": X, "y.cotangent": np.ones((3, 2), np.float32)}
    return run_onnxruntime(vjp(wide(), ["x"], ["y"]), feeds)


def test_beside_the_model_its_data_are_shared(external: Path) -> None:
    written = write_vjp(external, external.with_name("gradient.onnx"))
    assert written.shared == ("weights.bin",)
    assert [path.name for path in written.files] == ["gradient.onnx"]
    assert written.n_bytes < 5000 < (external.parent / "weights.bin").stat().st_size
    for got, wanted in zip(run(written.files[0]), expected(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_elsewhere_its_data_are_copied(external: Path, tmp_path: Path) -> None:
    target = tmp_path / "other" / "gradient.onnx"
    target.parent.mkdir()
    written = write_vjp(external, target, wrt=["x"], of=["y"])
    assert [path.name for path in written.files] == ["gradient.onnx", "gradient.onnx.data"]
    assert not written.shared
    (external.parent / "weights.bin").unlink()
    for got, wanted in zip(run(target), expected(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_large_weights_are_never_read(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        onnx.external_data_helper,
        "load_external_data_for_tensor",
        lambda tensor, folder: read.append(tensor.name) or setattr(tensor, "raw_data", b"\0" * 4 * 140),
    )
    structure = onnx.load(external, load_external_data=False)
    assert len(structure.graph.initializer) == 3
    with pytest.raises(ModelError):
        write_vjp(external, external.with_name("gradient.onnx"), wrt=["absent"])
    assert sorted(read) == ["V", "b"]


def relocate(path: Path, **entries: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = [e for e in tensor.external_data if e.key not in entries]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin", ""])
def test_data_outside_the_folder(external: Path, location: str) -> None:
    (external.parent / "weights.bin").rename(external.parent.parent / "weights.bin")
    relocate(external, location=location)
    with pytest.raises(ModelFileError, match="outside its folder"):
        write_vjp(external, external.with_name("gradient.onnx"))
    assert sorted(path.name for path in external.parent.iterdir()) == ["model.onnx"]


def test_data_behind_a_link(external: Path) -> None:
    outside = external.parent.parent / "secret.bin"
    (external.parent / "weights.bin").rename(outside)
    (external.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(ModelFileError, match="outside its folder"):
        write_vjp(external, external.with_name("gradient.onnx"))


@pytest.mark.parametrize(
    "entries", [{"offset": "999999"}, {"offset": "-4"}, {"length": "12"}, {"length": "99999999"}]
)
def test_data_that_the_file_does_not_hold(external: Path, entries: dict[str, str]) -> None:
    relocate(external, **entries)
    with pytest.raises(ModelFileError, match=r"'W' of shape \(80, 70\) needs 22400 bytes"):
        write_vjp(external, external.with_name("gradient.onnx"))


def test_data_that_are_missing(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match="put it beside the model"):
        write_vjp(external, external.with_name("gradient.onnx"))


@pytest.mark.parametrize("dims", [[2**40, 2**40], [2**62, 4], [10**9, 10**9, 10**9]])
def test_an_initializer_that_claims_to_be_huge(tmp_path: Path, dims: list[int]) -> None:
    """Nothing of that size is made; what the file does not hold is ONNX Runtime's to refuse."""
    model = wide()
    model.graph.initializer[0].dims[:] = dims
    with pytest.raises(ModelError):
        vjp(model, ["x"], ["y"])


def test_initializers_whose_elements_are_not_there() -> None:
    model = wide()
    model.graph.initializer[1].dims[:] = [71]
    with pytest.raises(ModelError, match=r"initializer 'b' of shape \(71,\) does not hold"):
        vjp(model, ["x"], ["y"])
    model.graph.initializer[1].dims[:] = [-70]
    with pytest.raises(ModelError, match=r"impossible shape \(-70,\)"):
        vjp(model, ["x"], ["y"])


def test_graphs_within_graphs() -> None:
    """Protobuf itself gives up at about twice that depth."""
    depth = DEEPEST_GRAPH + 1
    inner = helper.make_graph([helper.make_node("Neg", ["x"], ["y0"])], "g", [], [_port("y0")])
    for k in range(1, depth + 1):
        other = helper.make_graph([helper.make_node("Abs", ["x"], [f"z{k}"])], "g", [], [_port(f"z{k}")])
        node = helper.make_node("If", ["c"], [f"y{k}"], then_branch=inner, else_branch=other)
        inner = helper.make_graph([node], "g", [], [_port(f"y{k}")])
    inner.input.extend([_port("x"), helper.make_tensor_value_info("c", TensorProto.BOOL, [])])
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match=f"more than {DEEPEST_GRAPH} deep"):
        vjp(model, ["x"], [f"y{depth}"])


def test_models_that_contradict_themselves() -> None:
    changes = {
        "unknown type 99": lambda model: setattr(model.graph.initializer[1], "data_type", 99),
        "no version 0": lambda model: setattr(model.opset_import[0], "version", 0),
        "operator Gamm": lambda model: setattr(model.graph.node[0], "op_type", "Gamm"),
        "not valid": lambda model: model.graph.node[0].input.pop() and model.graph.node[0].input.pop(),
    }
    for message, change in changes.items():
        model = wide()
        change(model)
        with pytest.raises(ModelError, match=message):
            vjp(model, ["x"], ["y"])


def test_bytes_changed_at_random_end_in_a_gradient_or_a_clear_error() -> None:
    rng, content = np.random.default_rng(0), models.mlp().SerializeToString()
    ends = set()
    for _ in range(150):
        changed = bytearray(content)
        for place in rng.integers(0, len(changed), 2):
            changed[place] = rng.integers(256)
        try:
            model = load_model(bytes(changed))
            floats = [v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT]
            vjp(model, floats, [v.name for v in model.graph.output])
            ends.add("gradient")
        except ModelError:
            ends.add("error")
    assert ends == {"gradient", "error"}


def _port(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])


@pytest.mark.full
def test_more_than_2_gb_of_weights(tmp_path: Path) -> None:
    """3 GB of zeros in a sparse file: the gradient takes megabytes of memory, an oracle one copy."""
    import resource

    size = 28_000
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
            "large",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])],
            [TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[size, size])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    (tensor,) = model.graph.initializer
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").touch()
    os.truncate(tmp_path / "weights.bin", 4 * size * size)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.write(np.arange(8, dtype=np.float32).tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written = write_vjp(path, tmp_path / "gradient.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    assert written.n_bytes < 10_000
    session = onnxruntime.InferenceSession(str(written.files[0]), providers=["CPUExecutionProvider"])
    x, g = np.zeros((1, size), np.float32), np.ones((1, size), np.float32)
    y, gradient = session.run(None, {"x": x, "y.cotangent": g})
    assert not y.any()
    assert gradient[0, 0] == 28  # the sum of the row that is not zero
    del session
    oracle = OnnxOracle(path, target=3, session_options=_unpacked)
    assert oracle.value_and_gradient(x)[1][0, 0] == 3
    assert oracle.weights["W"][0, :8].tolist() == [*range(8)]


def _unpacked() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    return options
