"""What ``mollikit explain`` writes and says, on real models."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mollikit_onnx import OnnxOracle
from PIL import Image

import mollikit as mk
from mollikit.cli import main

from .conftest import COMMAND

FEW = ["--evaluations", "64", "--seed", "3", "--quiet"]


def explain(*words):
    code = main(["explain", *map(str, words)])
    assert code == 0, code


def record(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(Path(path).read_text(), parse_constant=refuse)


def arrays(path):
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def model_input():
    """The photo as the classifier's TOML has it, by another way: centre crop of 16/0.875 = 18.29 pixels."""
    size = (round(24 * 16 / 20 / 0.875), round(16 / 0.875))
    with Image.open("photo.png") as image:
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))[1:17, 3:19]
    return ((pixels / 255 - 0.5) / 0.25).transpose(2, 0, 1).astype(np.float32)


def test_a_photo_gives_what_the_library_gives(classifier, photo):
    explain(classifier, photo, "--target", 1, "--out", "out", *FEW)
    stored = arrays("out/photo.npz")
    told = record("out/photo.json")
    oracle = OnnxOracle(classifier, target=1)
    smooth = mk.Pathwise(inputs=mk.Gaussian(mk.OfRange(0.15)), sampler=mk.Recentred(8), block=told["block"])
    views = {"pooled": mk.ChannelSum().then(mk.Pool(1))}
    expected = smooth.estimate(oracle, model_input(), views=views, budget=mk.Evaluations(64), rng=3)
    np.testing.assert_array_equal(stored["gradient"], expected.gradient)
    np.testing.assert_array_equal(stored["standard_error"], expected.standard_error)
    np.testing.assert_array_equal(stored["view.pooled"], expected.views["pooled"].value)
    np.testing.assert_array_equal(
        stored["view.pooled.standard_error"], expected.views["pooled"].standard_error
    )
    np.testing.assert_array_equal(
        stored["raw_gradient"], oracle.value_and_gradient(model_input()[None])[1][0]
    )
    assert told["relative_error"]["map"] == expected.relative_error
    assert told["n_evaluations"] == 64
    assert told["target"] == {"index": [1], "label": "dog"}


def test_the_folder_holds_a_picture_the_arrays_and_the_record(classifier, photo):
    explain(classifier, photo, "--out", "out", *FEW)
    assert sorted(path.name for path in Path("out").iterdir()) == ["photo.json", "photo.npz", "photo.png"]
    with Image.open("out/photo.png") as picture:
        assert picture.size == (1500, 430)
    told = record("out/photo.json")
    assert sorted(told["files"]) == ["photo.json", "photo.npz", "photo.png"]
    assert told["preprocessing"]["size"] == [16, 16]
    assert told["arguments"]["seed"] == 3
    assert len(told["model"]["sha256"]) == len(told["input"]["sha256"]) == 64
    assert told["stopped"] == "Evaluations(n=64)"
    assert not told["partial"]
    assert not told["interrupted"]


def test_the_predictions_are_the_softmax_of_the_logits(classifier, photo):
    explain(classifier, photo, "--out", "out", *FEW)
    logits = OnnxOracle(classifier, target=0).predict(model_input()[None])[0].astype(np.float64)
    odds = np.exp(logits) / np.exp(logits).sum()
    seen = record("out/photo.json")["predictions"]
    assert [p["index"] for p in seen] == list(np.argsort(-odds))
    assert [p["probability"] for p in seen] == pytest.approx(sorted(odds, reverse=True))
    assert record("out/photo.json")["target"]["index"] == [int(np.argmax(logits))]


@pytest.mark.parametrize(
    ("target", "index"), [("DOG", 1), ("tiger cat", 2), ("0", 0), ("top", None)], ids=str
)
def test_a_target_is_an_index_a_name_or_the_top(classifier, photo, target, index):
    explain(classifier, photo, "--target", target, "--out", "out", *FEW)
    told = record("out/photo.json")
    assert told["target"]["index"] == [told["predictions"][0]["index"] if index is None else index]


@pytest.mark.parametrize(
    "scheme",
    [
        ["--seconds", "0.4"],
        ["--evaluations=100", "--sampler=latin-hypercube:4", "--kernel=laplace", "--scale=0.3"],
        ["--relative-error=0.5:pooled", "--seconds=1", "--scale=bounds:-3,3,0.8", "--view-pool=3"],
    ],
    ids=["seconds", "evaluations", "relative error"],
)
def test_the_recorded_command_gives_the_same_bits(classifier, photo, scheme):
    explain(classifier, photo, "--out", "out", "--quiet", *scheme)  # the seed is drawn
    again = record("out/photo.json")["repeat"]["arguments"]
    Path("cnn.toml").unlink()  # the command stands by itself
    assert main([*again, "--quiet"]) == 0
    first, second = arrays("out/photo.npz"), arrays("photo-again/photo.npz")
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_the_largest_outputs_have_files_of_their_own_with_the_bits_that_each_has_alone(classifier, photo):
    explain(classifier, photo, "--top", 2, "--out", "out", *FEW)
    seen = sorted(path.name for path in Path("out").glob("*.json"))
    indices = [entry["index"] for entry in record(f"out/{seen[0]}")["predictions"][:2]]
    stems = [f"photo-{index}" for index in indices]
    assert {path.name for path in Path("out").iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "npz", "json")
    }
    for stem, index in zip(stems, indices, strict=True):
        told = record(f"out/{stem}.json")
        assert told["target"]["index"] == [index]
        assert told["provenance"]["targets"] == indices
        assert main([*told["repeat"]["arguments"], "--quiet", "--force"]) == 0
        first, second = arrays(f"out/{stem}.npz"), arrays("photo-again/photo.npz")
        assert first.keys() == second.keys()
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_without_a_seed_every_run_draws_its_own(mlp):
    for out in ("one", "other"):
        explain(mlp, "x.npy", "--evaluations", 64, "--quiet", "--out", out)
    assert record("one/x.json")["arguments"]["seed"] != record("other/x.json")["arguments"]["seed"]
    assert not np.array_equal(arrays("one/x.npz")["gradient"], arrays("other/x.npz")["gradient"])


def test_the_recorded_command_line_is_the_recorded_arguments(mlp):
    explain(mlp, "x.npy", "--out", "a b", *FEW)
    repeat = record("a b/x.json")["repeat"]
    assert shlex.split(repeat["command"]) == ["mollikit", *repeat["arguments"]]


def test_an_array_has_no_picture(mlp, capsys):
    explain(mlp, "x.npy", "--target", 2, "--evaluations", 64, "--seed", 3, "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["x.json", "x.npz"]
    assert "only photos have one" in capsys.readouterr().out
    stored = arrays("out/x.npz")
    assert stored.keys() == {"gradient", "standard_error", "raw_gradient"}
    smooth = mk.Pathwise(inputs=mk.Gaussian(mk.OfRange(0.15)), block=record("out/x.json")["block"])
    expected = smooth.estimate(OnnxOracle(mlp, target=2), np.load("x.npy"), budget=mk.Evaluations(64), rng=3)
    np.testing.assert_array_equal(stored["gradient"], expected.gradient)


def test_several_named_inputs_and_one_that_is_held(two_inputs):
    explain(two_inputs, "ab.npz", "--target", 1, "--out", "out", *FEW)
    stored = arrays("out/ab.npz")
    assert {name: values.shape for name, values in stored.items()} == {
        f"{kind}.{name}": shape
        for kind in ("gradient", "standard_error", "raw_gradient")
        for name, shape in (("a", (4,)), ("b", (3,)))
    }
    points = {"a": np.arange(4, dtype=np.float32)[None], "b": np.arange(3, dtype=np.float32)[None]}
    raw = OnnxOracle(two_inputs, target=1).value_and_gradient(points, row=np.array([4]))[1]
    np.testing.assert_array_equal(stored["raw_gradient.a"], raw["a"][0])
    np.testing.assert_array_equal(stored["raw_gradient.b"], raw["b"][0])


def test_each_of_several_inputs_is_what_it_is_alone(classifier, photo):
    with Image.open(photo) as upright:
        upright.rotate(180).save("turned.png")
    explain(classifier, photo, "turned.png", "--out", "both", *FEW)
    explain(classifier, "turned.png", "--out", "alone", *FEW)
    assert len(list(Path("both").iterdir())) == 6
    for name, values in arrays("alone/turned.npz").items():
        np.testing.assert_array_equal(values, arrays("both/turned.npz")[name], err_msg=name)


def test_the_report_tells_what_was_seen_and_how_well(classifier, photo, capsys):
    explain(classifier, photo, "--target", "dog", "--evaluations", 64, "--out", "out")
    said = capsys.readouterr()
    told = record("out/photo.json")
    for part in (
        f"{told['predictions'][0]['name']} {told['predictions'][0]['probability']:.1%}",
        "64 in",
        f"{told['relative_error']['map']:.1%} of the whole map",
        f"{told['relative_error']['pooled']:.1%} of the view",
        "photo.png",
        "photo.npz",
    ):
        assert part in said.out
    assert "64 evaluations" in said.err  # the progress bar


def test_the_report_foretells_what_a_tenth_of_error_takes(classifier, photo, capsys):
    words = ("--sampler", "independent", "--evaluations", 16, "--scale", "0.5", "--seed", 3, "--out", "out")
    explain(classifier, photo, "--target", "dog", *words)
    told = record("out/photo.json")
    error, ahead = told["relative_error"]["pooled"], told["forecast"]
    assert ahead["view"] == "pooled"
    assert ahead["evaluations"] == round(16 * (error / 0.1) ** 2)
    assert ahead["low"] < ahead["evaluations"] < ahead["high"]
    assert f"about {ahead['evaluations']:,} evaluations" in capsys.readouterr().out


def test_json_is_alone_on_standard_output(classifier, photo):
    words = ["explain", classifier, photo, "--evaluations", "64", "--out", "out", "--json"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["inputs"] == [record("out/photo.json")]
    assert result["out"] == "out"
    assert "64 evaluations" in done.stderr


def test_quiet_says_nothing(classifier, photo, capsys):
    explain(classifier, photo, "--out", "out", *FEW)
    assert capsys.readouterr() == ("", "")


def test_the_version_and_the_module(folder):
    words = [sys.executable, "-m", "mollikit.cli", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"mollikit {mk.__version__}\n"


def test_help_imports_nothing_heavy(folder):
    program = (
        "import sys; from mollikit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "explain", "--help"], capture_output=True, text=True, check=True
    )
    assert "--relative-error" in done.stdout
    heavy = {"scipy.stats", "matplotlib", "onnx", "onnxruntime", "PIL", "mollikit_onnx", "tqdm"}
    assert heavy & set(done.stderr.split()) == set()
