"""``mollikit explain --forwards``: drawn towards a surrogate, and said to be, in every output."""

import json
from pathlib import Path

import numpy as np
import pytest
from mollikit_onnx import MeanGates, OnnxOracle
from PIL import Image

import mollikit as mk
from mollikit.cli import main

from .test_explain import arrays, model_input, record

TOWARDS = ["--forwards", "8", "--seed", "3"]


def test_a_photo_gives_what_the_library_gives(classifier, photo, capsys):
    assert main(["explain", classifier, photo, "--target", "1", *TOWARDS, "--out", "out"]) == 0
    told, stored = record("out/photo.json"), arrays("out/photo.npz")
    kernel = mk.Gaussian(mk.OfRange(0.15))
    pathwise = mk.Pathwise(kernel, mk.Independent(), block=told["block"])
    summed = mk.ChannelSum()
    expected = mk.Combined(pathwise, MeanGates(kernel, 8)).estimate(
        OnnxOracle(classifier, target=1),
        model_input(),
        views={"summed": summed, "pooled": summed.then(mk.Pool(1))},
        budget=mk.Evaluations(20),  # 16 and 8 / 3 + 1, rounded up
        rng=3,
    )
    assert stored.keys() == {"gradient", "raw_gradient", "view.summed", "view.pooled"}
    np.testing.assert_array_equal(stored["gradient"], expected.gradient)
    np.testing.assert_array_equal(stored["view.pooled"], expected.views["pooled"].value)
    assert told["biased"] == expected.biased
    assert told["relative_error"]["map"] == expected.relative_error
    assert told["relative_interval"]["pooled"] == list(expected.views["pooled"].relative_interval())
    assert told["risk"]["map"]["standard_error"] == expected.risk_standard_error
    assert (told["n_gradients"], told["n_folds"], told["stopped"]) == (16, 8, "Evaluations(n=20)")
    with Image.open("out/photo.png") as picture:
        assert picture.size == (1240, 430)
    said = capsys.readouterr().out
    assert "biased           drawn towards a surrogate" in said
    assert "by estimated risk" in said


def test_the_recorded_command_gives_the_same_bits(mlp):
    asked = ["explain", mlp, "x.npy", *TOWARDS, "--evaluations", "64", "--sampler", "antithetic"]
    assert main([*asked, "--out", "out", "--quiet"]) == 0
    assert main([*record("out/x.json")["repeat"]["arguments"], "--quiet"]) == 0
    first, second = arrays("out/x.npz"), arrays("x-again/x.npz")
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_an_unbiased_run_says_that_it_is(mlp):
    assert main(["explain", mlp, "x.npy", "--evaluations", "64", "--out", "out", "--quiet"]) == 0
    told = record("out/x.json")
    assert told["biased"] is None
    assert "risk" not in told


def test_ctrl_c_keeps_the_folds_that_were_whole(classifier, photo, monkeypatch, capsys):
    whole, left = OnnxOracle.value_and_gradient, [6]  # the raw gradient, four folds, and then

    def presses(self, points, **held):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return whole(self, points, **held)

    monkeypatch.setattr(OnnxOracle, "value_and_gradient", presses)
    assert main(["explain", classifier, photo, *TOWARDS, "--out", "out", "--json"]) == 130
    told = json.loads(capsys.readouterr().out)["inputs"][0]
    assert (told["interrupted"], told["partial"], told["n_folds"]) == (True, True, 4)
    assert told["stopped"] == "interrupted"
    assert Path("out/photo.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--forwards", "3"], "at least 4"),
        (["--forwards", "8", "--seconds", "2"], "--seconds with --forwards"),
        (["--forwards", "8", "--relative-error", "0.1"], "--relative-error with --forwards"),
        (["--forwards", "8", "--evaluations", "16"], "give at least Evaluations(20)"),
        (["--forwards", "8", "--sampler", "recentred:8"], "Independent()"),
        (["--forwards", "8", "--kernel", "cauchy"], "no variance"),
    ],
)
def test_what_does_not_suit_is_wrong_usage(mlp, capsys, words, told):
    try:
        ended = main(["explain", mlp, "x.npy", *words, "--out", "out"])
    except SystemExit as left:
        ended = left.code
    assert ended == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_without_a_surrogate_is_named(mlp, capsys, monkeypatch):
    monkeypatch.setattr("mollikit.cli.surrogates._GROUP", "mollikit.none")
    assert main(["explain", mlp, "x.npy", "--forwards", "8", "--out", "out"]) == 2
    assert "--forwards 8: 'mlp.onnx'" in capsys.readouterr().err
