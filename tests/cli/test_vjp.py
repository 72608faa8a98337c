"""``mollikit vjp``: files in, files out, codes and messages."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mollikit.cli import main


@pytest.fixture
def model(classifier):
    return classifier


def test_the_file_runs_on_onnxruntime(model, capsys):
    before = Path(model).read_bytes()
    assert main(["vjp", model, "-o", "gradient.onnx"]) == 0
    assert Path(model).read_bytes() == before
    said = capsys.readouterr().out
    assert "gradient.onnx: " in said
    assert "image.gradient float[N,3,H,W]" in said
    session = onnxruntime.InferenceSession("gradient.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    logits, gradient = session.run(None, {"image": x, "logits.cotangent": np.eye(3, dtype=np.float32)[:2]})
    assert logits.shape == (2, 3)
    assert gradient.shape == x.shape
    assert np.abs(gradient).sum() > 0


def test_names_operator_set_and_json(model, capsys):
    words = ["--wrt", "w", "active", "--of", "features", "--opset", "20", "--json"]
    assert main(["vjp", model, "--out", "gradient.onnx", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["inputs"] == ["image float[N,3,H,W]", "features.cotangent float[N,6]"]
    assert told["outputs"][:2] == ["logits float[N,3]", "w.gradient float[6,3,3,3]"]
    assert told["outputs"][2].startswith("active.gradient float[N,6,")
    assert told["opset"] == 20
    assert told["n_bytes"] == Path("gradient.onnx").stat().st_size
    assert told["n_operators"] == len(onnx.load("gradient.onnx").graph.node)
    assert told["n_forward_operators"] == 5


REFUSED = {
    "no model": (["absent.onnx"], "no file 'absent.onnx'"),
    "unknown suffix": (["model.h5"], "install an adapter"),
    "no ONNX": (["text.onnx"], "not an ONNX model"),
    "unknown input": (["cnn.onnx", "--wrt", "picture"], "no tensor 'picture'; it has 'image'"),
    "unknown output": (["cnn.onnx", "--of", "scores"], "no tensor 'scores'; it has 'logits'"),
    "operator set": (["cnn.onnx", "--opset", "9"], "opset 9 is not one of those from 18 to 26"),
    "itself": (["cnn.onnx", "--out", "cnn.onnx"], "is the model itself"),
    "no folder": (["cnn.onnx", "--out", "absent/gradient.onnx"], "no folder 'absent'"),
    "no rule": (["strange.onnx"], "operator Strange (domain com.example), node 'here'"),
    "quantised": (["quantised.onnx"], "straight_through"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_leave_nothing_behind(model, case, capsys):
    ports = "(float[N] x) => (float[N] y)"
    imports = '<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>'
    strange = onnx.parser.parse_model(f"{imports} m {ports} {{ y = com.example.Strange(x) }}")
    strange.graph.node[0].name = "here"
    onnx.save(strange, "strange.onnx")
    onnx.save(
        onnx.parser.parse_model(
            f"{imports} m {ports} <float s = {{0.1}}> "
            "{ q = QuantizeLinear(x, s)  y = DequantizeLinear(q, s) }"
        ),
        "quantised.onnx",
    )
    Path("text.onnx").write_text("no model, but long enough to be looked at")
    Path("model.h5").write_bytes(b"")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    words, message = REFUSED[case]
    assert main(["vjp", *words, *([] if "--out" in words else ["--out", "gradient.onnx"])]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mollikit: error: ")
    assert message in said
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    if case == "quantised":
        assert main(["vjp", *words, "--straight-through", "-o", "gradient.onnx"]) == 0


def test_a_file_that_exists_is_replaced_only_when_all_went_well(model):
    Path("gradient.onnx").write_text("old")
    assert main(["vjp", model, "-o", "gradient.onnx", "--wrt", "absent"]) == 1
    assert Path("gradient.onnx").read_text() == "old"
    assert main(["vjp", model, "-o", "gradient.onnx"]) == 0
    onnx.checker.check_model("gradient.onnx", full_check=True)


def test_wrong_usage(model):
    with pytest.raises(SystemExit) as left:
        main(["vjp", model])
    assert left.value.code == 2
