"""Bad input: one clear line that names the culprit, the right exit code, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mollikit_onnx import OnnxOracle
from PIL import Image

from mollikit.cli import main
from tests.cli.conftest import COMMAND


@pytest.fixture
def everything(classifier, photo, mlp, two_inputs):
    """All models and inputs, good and bad."""
    good = Path(classifier).read_bytes()
    Path("truncated.onnx").write_bytes(good[: len(good) // 2])
    Path("text.onnx").write_text("no model")
    Path("model.h5").write_bytes(b"")
    Path("text.png").write_text("no picture")
    whole = Path(photo).read_bytes()
    Path("half.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((20, 20), np.uint16)).save("deep.png")
    x = np.load("x.npy")
    np.save("nan.npy", np.where(np.arange(5) == 3, np.nan, x))
    np.save("inf.npy", np.where(np.arange(5) == 2, np.inf, x))
    np.save("whole.npy", np.arange(5))
    np.save("long.npy", np.ones(6, np.float32))
    np.save("batch.npy", x[None])
    np.save("huge.npy", np.full(5, 3e38, np.float32) * np.array([1, -1, 1, -1, 1], np.float32))
    np.save("zero.npy", np.zeros(5, np.float32))
    np.save("objects.npy", np.array([None, 1]), allow_pickle=True)
    Path("cut.npy").write_bytes(Path("x.npy").read_bytes()[:-4])
    Path("cut.npz").write_bytes(Path("ab.npz").read_bytes()[:100])
    square = np.random.default_rng(0).normal(size=(3, 20, 22)).astype(np.float32)
    np.save("square.npy", square)
    holed = square[:, :16, :16].copy()
    holed[2, 3, 4] = np.nan
    np.save("holed.npy", holed)
    np.savez("a.npz", a=np.ones(4, np.float32), row=np.int64(1))
    np.savez("unheld.npz", a=np.arange(4, dtype=np.float32), b=np.arange(3, dtype=np.float32))
    Path("other").mkdir()
    Path("other/photo.jpg").write_bytes(whole)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("keep me")
    return Path.cwd()


FEW = ["--evaluations", "64"]

REFUSED = {
    "no model": (["absent.onnx", "photo.png"], ["absent.onnx", "check the path"]),
    "truncated model": (["truncated.onnx", "photo.png"], ["truncated.onnx", "truncated"]),
    "no ONNX": (["text.onnx", "photo.png"], ["text.onnx", "ONNX model"]),
    "unknown suffix": (["model.h5", "photo.png"], ["model.h5", ".onnx", "install an adapter"]),
    "no input": (["cnn.onnx", "absent.png"], ["absent.png", "check the path"]),
    "no image": (["cnn.onnx", "text.png"], ["text.png", "not an image"]),
    "half an image": (["cnn.onnx", "half.png"], ["half.png", "not an image"]),
    "16 bits": (["cnn.onnx", "deep.png"], ["deep.png", "8 bits"]),
    "second input bad": (["cnn.onnx", "photo.png", "text.png"], ["text.png"]),
    "same name twice": (["cnn.onnx", "photo.png", "other/photo.jpg"], ["photo.json", "rename"]),
    "image for a vector": (["mlp.onnx", "photo.png"], ["three axes", ".npy"]),
    "image for two inputs": (["two.onnx", "photo.png"], ["['a', 'b']", ".npz"]),
    "nan": (["mlp.onnx", "nan.npy"], ["nan.npy", "NaN", "(3,)"]),
    "infinity": (["mlp.onnx", "inf.npy"], ["inf.npy", "infinite", "(2,)"]),
    "output not a number": (["mlp.onnx", "huge.npy", "--scale", "1"], ["huge.npy", "output is NaN"]),
    "integers": (["mlp.onnx", "whole.npy"], ["whole.npy", "int64", "cast"]),
    "wrong shape": (["mlp.onnx", "long.npy"], ["long.npy", "(5)", "(6,)"]),
    "batch axis": (["mlp.onnx", "batch.npy"], ["batch.npy", "leave out the batch axis"]),
    "truncated array": (["mlp.onnx", "cut.npy"], ["cut.npy", "truncated"]),
    "truncated archive": (["two.onnx", "cut.npz"], ["cut.npz", "truncated"]),
    "pickled objects": (["mlp.onnx", "objects.npy"], ["objects.npy", "numbers"]),
    "one array for two inputs": (["two.onnx", "x.npy"], ["['a', 'b']", ".npz"]),
    "input missing": (["two.onnx", "a.npz"], ["a.npz", "'b'"]),
    "held input missing": (["two.onnx", "unheld.npz"], ["'row'"]),
    "another size than the TOML's": (
        ["cnn.onnx", "square.npy"],
        ["square.npy", "20 x 22", "cnn.toml", "16 x 16", "--size 20 22"],
    ),
    "a nan in an image": (["cnn.onnx", "holed.npy"], ["holed.npy", "NaN", "(2, 3, 4)"]),
}
# The options are at fault: they do not suit the model or the input.
MISUSED = {
    "target out of range": (["cnn.onnx", "photo.png", "--target", "3"], ["target 3", "out of range"]),
    "target of two axes": (["cnn.onnx", "photo.png", "--target", "0,1"], ["(0, 1)", "2 indices"]),
    "more than there are": (["cnn.onnx", "photo.png", "--top", "4"], ["Top(k=4)", "3 elements"]),
    "top and a target": (["cnn.onnx", "photo.png", "--top", "2", "--target", "1"], ["--top", "--target"]),
    "unknown class": (["cnn.onnx", "photo.png", "--target", "tiger"], ["'tiger'", "'Tiger Cat'"]),
    "misspelt class": (["cnn.onnx", "photo.png", "--target", "dgo"], ["'dgo'", "'dog'"]),
    "no class names": (["mlp.onnx", "x.npy", "--target", "dog"], ["'dog'", "mlp.toml"]),
    "constant input": (["mlp.onnx", "zero.npy"], ["zero.npy", "OfRange", "nothing would be smoothed"]),
    "outside the bounds": (["mlp.onnx", "x.npy", "--scale", "bounds:0,1"], ["x.npy", "outside"]),
    "too few evaluations": (["mlp.onnx", "x.npy", "--evaluations", "15"], ["15", "at least 16"]),
    "small block": (["mlp.onnx", "x.npy", "--block", "7"], ["--block 7", "8 points"]),
    "unknown view": (["cnn.onnx", "photo.png", "--relative-error", "0.1:pixels"], ["'pixels'", "'pooled'"]),
    "view of an array": (["mlp.onnx", "x.npy", "--view-pool", "2"], ["--view-pool", "array"]),
    "large cells": (["cnn.onnx", "photo.png", "--view-pool", "17"], ["--view-pool 17", "16 pixels"]),
    "Sobol": (["cnn.onnx", "photo.png", "--size", "96", "--sampler", "sobol"], ["21201"]),
    "unknown provider": (["mlp.onnx", "x.npy", "--provider", "AbacusExecutionProvider"], ["Abacus"]),
    "means for two channels": (["cnn.onnx", "photo.png", "--mean", "0", "1"], ["mean = (0.0, 1.0)"]),
    "grey for a colour model": (
        ["cnn.onnx", "photo.png", "--mean", "0.5", "--std", "0.2"],
        ["(1, 16, 16)", "(3, ?, ?)"],
    ),
    "wrong layout": (["cnn.onnx", "photo.png", "--layout", "NHWC"], ["NHWC", "--layout"]),
    "crop of nothing": (["cnn.onnx", "photo.png", "--crop-fraction", "0"], ["crop_fraction = 0.0"]),
    "three sizes": (["cnn.onnx", "photo.png", "--size", "4", "4", "4"], ["size = (4, 4, 4)"]),
    "another size than asked for": (["cnn.onnx", "square.npy", "--size", "16"], ["--size", "20 x 22"]),
    "mean of an array": (["mlp.onnx", "x.npy", "--mean", "0"], ["--mean", "images"]),
}


@pytest.mark.parametrize("case", REFUSED | MISUSED)
def test_refused(everything, capsys, case):
    words, expected = (REFUSED | MISUSED)[case]
    before = sorted(everything.rglob("*"))
    code = main(["explain", *words, *([] if "--evaluations" in words else FEW), "--out", "out"])
    assert code == (1 if case in REFUSED else 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mollikit: error: ")
    assert "Traceback" not in said.err
    assert "evaluations, error" not in said.err  # no run was begun
    for part in expected:
        assert part in said.err, said.err
    assert sorted(everything.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("full", ["full", "not empty", "--force"]),
        ("mlp.onnx", ["mlp.onnx", "is a file"]),
        ("mlp.onnx/out", ["mlp.onnx", "does not exist"]),
        ("absent/out", ["absent", "make it first"]),
    ],
)
def test_an_output_folder_that_cannot_be_written(everything, capsys, monkeypatch, out, expected):
    # Said before the model is opened.
    monkeypatch.setattr("mollikit.cli.opening.open_model", lambda *_: pytest.fail("the model was opened"))
    before = sorted(everything.rglob("*"))
    assert main(["explain", "mlp.onnx", "x.npy", *FEW, "--out", out]) == 1
    said = capsys.readouterr().err
    for part in expected:
        assert part in said, said
    assert sorted(everything.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind here")
def test_a_folder_without_permission(mlp, capsys):
    Path("locked").mkdir(0o500)
    assert main(["explain", mlp, "x.npy", *FEW, "--out", "locked/out"]) == 1
    assert "locked/out" in capsys.readouterr().err


def test_force_never_deletes_what_mollikit_did_not_write(everything, capsys):
    assert main(["explain", "mlp.onnx", "x.npy", *FEW, "--out", "full", "--force"]) == 1
    assert "mine.txt" in capsys.readouterr().err
    assert Path("full/mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--kernel", "triangle"], "triangular"),
        (["--kernel", "student-t:-1"], "nu"),
        (["--scale", "wide"], "range:0.15"),
        (["--scale", "-1"], "at least 0"),
        (["--scale", "0"], "above 0"),
        (["--scale", "nan"], "finite"),
        (["--scale", "range:0"], "positive"),
        (["--scale", "bounds:1,0"], "below"),
        (["--scale", "bounds:0,1,2"], "confidence"),
        (["--sampler", "grid"], "recentred[:POINTS]"),
        (["--sampler", "sobol:12"], "power of two"),
        (["--sampler", "antithetic:4"], "not a sampler"),
        (["--evaluations", "0"], "at least 1"),
        (["--relative-error", "0"], "positive"),
        (["--relative-error", "small"], "0.1:pooled"),
        (["--seconds", "-3"], "positive"),
        (["--seconds", "soon"], "positive"),
        (["--seed", "-1"], "at least 0"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_wrong_usage_exits_with_2(mlp, capsys, words, expected):
    with pytest.raises(SystemExit) as left:
        main(["explain", mlp, "x.npy", "--out", "out", *words])
    assert left.value.code == 2
    assert expected in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("words", [[], ["explain"], ["explain", "mlp.onnx", "x.npy"]], ids=str)
def test_what_is_missing_exits_with_2(mlp, capsys, words):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("[image]\nsise = 3\n", ["image.sise", "image.size, image.crop_fraction"]),
        ("[images]\nsize = 3\n", ["images", "image, output"]),
        ("image = 3\n", ["[image]"]),
        ("[image\n", ["not TOML"]),
        ("[output]\nclasses = [1, 2, 3]\n", ["list of strings"]),
        ('[output]\nclasses = ["cat"]\n', ["names 1 classes", "(3,)"]),
        ('[image]\nsize = "large"\n', ["size"]),
        ("[image]\nsize = [16, 0]\n", ["size = (16, 0)"]),
        ('[image]\nmean = ["a", "b", "c"]\n', ["could not convert"]),
        ("[image]\nmean = [0, 0, 0]\nstd = [1, 0, 1]\n", ["std"]),
        ('[image]\nlayout = "CHWN"\n', ["CHWN", "NCHW and NHWC"]),
    ],
)
def test_a_bad_toml(classifier, photo, capsys, told, expected):
    Path("cnn.toml").write_text(told)
    assert main(["explain", classifier, photo, *FEW, "--out", "out"]) == 1
    said = capsys.readouterr().err
    for part in expected:
        assert part in said, said
    assert not Path("out").exists()


def test_a_model_that_has_no_gradient_is_refused_and_leaves_nothing(mlp, capsys):
    model = onnx.load(mlp)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Imputer", "ai.onnx.ml"
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    onnx.save(model, mlp)
    before = sorted(Path.cwd().rglob("*"))
    assert main(["explain", mlp, "x.npy", *FEW, "--out", "out"]) == 1
    assert "Imputer" in capsys.readouterr().err
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize(
    ("module", "mend"),
    [
        ("onnxruntime", "mollikit[onnx]"),
        ("PIL", "mollikit[viz]"),
        ("matplotlib", "mollikit[viz]"),
    ],
)
def test_a_missing_extra_is_named(classifier, photo, module, mend):
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from mollikit.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "explain", classifier, photo, *FEW, "--out", "out"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install '{mend}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()


def test_debug_shows_the_traceback(mlp, capsys):
    assert main(["explain", mlp, "absent.npy", *FEW, "--out", "out", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_who_leaves_is_not_an_error(mlp):
    asked = [*COMMAND, "explain", mlp, "x.npy", *FEW, "--json", "--quiet", "--out", "out"]
    run = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    told = run.stderr.read().decode()
    run.stderr.close()
    assert run.wait(60) == 141
    assert told == ""


def test_a_size_that_the_model_cannot_take(classifier, photo, capsys):
    def refuse(*_, **__):
        raise Exception("[RUNTIME] : 2 : too small")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxOracle, "predict", refuse)
        assert main(["explain", classifier, photo, *FEW, "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert "cannot take an input of shape (3, 16, 16)" in said
    assert "too small" in said
