from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from mollikit.cli import main
from tests.onnx import models


def write(path, model):
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_a_healthy_model(tmp_path, capsys):
    model = write(tmp_path / "mlp.onnx", models.mlp())
    np.save(tmp_path / "x.npy", np.ones(6, np.float32))
    assert main(["doctor", model, str(tmp_path / "x.npy"), "--target", "2", "--seconds", "0.1"]) == 0
    told = capsys.readouterr().out
    assert "gradient of output 2" in told
    assert "good   deterministic: " in told
    assert told.rstrip().endswith("healthy")
    assert max(map(len, told.splitlines()[1:])) <= 100


def test_json_and_nothing_else(tmp_path, capsys):
    model = write(tmp_path / "mlp.onnx", models.mlp())
    assert main(["doctor", model, "--seconds", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"]
    assert told["input"] is None
    assert {finding["check"] for finding in told["findings"]} >= {"rows", "gradient", "cost"}
    assert len(told["model"]["sha256"]) == 64


def test_a_model_that_is_flat(tmp_path, capsys):
    """A ReLU that is never reached."""
    nodes = [
        helper.make_node("Sub", ["x", "far"], ["moved"]),
        helper.make_node("Relu", ["moved"], ["y"]),
    ]
    ports = [("x", TensorProto.FLOAT, ["n", 3])], [("y", TensorProto.FLOAT, ["n", 3])]
    model = write(tmp_path / "dead.onnx", models.model(nodes, *ports, {"far": np.float32([9, 9, 9])}))
    assert main(["doctor", model, "--seconds", "0.1"]) == 1
    told = capsys.readouterr().out
    assert "FAULT  saturation:" in told
    assert "-> explain the logit" in told
    assert told.rstrip().endswith("1 fault to be mended")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["absent.onnx"], 1, "absent.onnx"),
        (["mlp.onnx", "absent.npy"], 1, "there is no input file 'absent.npy'"),
        (["mlp.onnx", "--target", "9"], 2, "target 9 is out of range"),
        (["absent.onnx", "--target", "9"], 1, "absent.onnx"),
        (["open.onnx"], 1, "leaves sizes of its inputs open"),
    ],
)
def test_what_cannot_be_used(tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mlp.onnx", models.mlp())
    write(tmp_path / "open.onnx", models.squares(("n", "m")))
    assert main(["doctor", *words]) == code
    assert message in capsys.readouterr().err
