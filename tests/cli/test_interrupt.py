"""Ctrl-C: what was computed is written and marked, and otherwise nothing is."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mollikit as mk
from mollikit.cli import main

from .conftest import COMMAND


def _interrupted_in_the_middle(*words):
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = b""
    # Some blocks are done when the progress tells of an error that is finite.
    while b"evaluations, error 0." not in said:
        piece = process.stderr.read1()
        assert piece, said
        said += piece
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=30)
    return process.returncode, out.decode(), (said + rest).decode()


def test_a_partial_estimate_is_written_marked_and_can_be_had_again(mlp):
    code, _, said = _interrupted_in_the_middle(
        "explain", mlp, "x.npy", "--evaluations", "1000000000", "--seed", "1", "--out", "out"
    )
    assert code == 130
    assert "mollikit: interrupted" in said
    assert "Traceback" not in said
    assert sorted(path.name for path in Path().iterdir()) == ["mlp.onnx", "out", "x.npy"]
    told = json.loads(Path("out/x.json").read_text())
    assert told["interrupted"]
    assert told["partial"]
    assert told["stopped"] == "interrupted"
    assert 16 <= told["n_evaluations"] < 1000000000
    assert main([*told["repeat"]["arguments"], "--quiet"]) == 0
    with np.load("out/x.npz") as first, np.load("x-again/x.npz") as second:
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_json_says_that_it_was_interrupted(mlp):
    code, out, _ = _interrupted_in_the_middle(
        "explain", mlp, "x.npy", "--evaluations", "1000000000", "--out", "out", "--json"
    )
    assert code == 130
    assert json.loads(out)["interrupted"]


def test_of_several_targets_all_are_written_in_part_and_told_apart(mlp):
    code, _, said = _interrupted_in_the_middle(
        "explain", mlp, "x.npy", "--top", "3", "--evaluations", "1000000000", "--seed", "1", "--out", "out"
    )
    assert code == 130
    assert "holds 3 of 3 explanations, 3 in part" in said
    records = [json.loads(path.read_text()) for path in Path("out").glob("*.json")]
    counts = [told["n_evaluations"] for told in records]
    # It may have come between two targets of the same block.
    assert max(counts) - min(counts) in (0, records[0]["block"])
    for told in records:
        assert told["interrupted"]
        assert told["provenance"]["target"] == told["target"]["index"][0]


@pytest.mark.parametrize("finished", [2, 3])
def test_of_several_targets_those_that_there_are_are_written_and_no_further_input(mlp, monkeypatch, finished):
    estimate_targets = mk.Pathwise.estimate_targets

    def interrupted(*args, **kwargs):
        raise mk.Interrupted(None, estimate_targets(*args, **kwargs)[-finished:])

    monkeypatch.setattr(mk.Pathwise, "estimate_targets", interrupted)
    np.save("y.npy", np.load("x.npy"))
    words = ["explain", mlp, "x.npy", "y.npy", "--top", "3", "--evaluations", "64", "--quiet", "--out", "out"]
    assert main(words) == 130
    records = [json.loads(path.read_text()) for path in Path("out").glob("*.json")]
    assert len(records) == finished
    for told in records:
        assert Path(told["input"]["path"]).name == "x.npy"
        assert told["provenance"]["target"] == told["target"]["index"][0]
        assert not told["interrupted"]


@pytest.mark.parametrize(
    "where", ["opening.open_model", "opening.read_subjects", "explain._explained", "explain._write"]
)
def test_before_there_is_anything_nothing_is_written(mlp, capsys, monkeypatch, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"mollikit.cli.{where}", interrupt)
    assert main(["explain", mlp, "x.npy", "--evaluations", "64", "--quiet", "--out", "out"]) == 130
    assert "nothing" not in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["mlp.onnx", "x.npy"]


def test_the_inputs_that_were_finished_are_kept(mlp, capsys, monkeypatch):
    from mollikit.cli import explain

    whole = explain._explained
    seen = []

    def interrupt_at_the_second(model, subject, *rest):
        seen.append(subject.path.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(model, subject, *rest)

    for name in ("y.npy", "z.npy"):
        np.save(name, np.arange(5, dtype=np.float32))
    monkeypatch.setattr(explain, "_explained", interrupt_at_the_second)
    words = ["explain", mlp, "x.npy", "y.npy", "z.npy", "--evaluations", "64", "--quiet", "--out", "out"]
    assert main(words) == 130
    assert seen == ["x.npy", "y.npy"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["x.json", "x.npz"]
    assert not json.loads(Path("out/x.json").read_text())["interrupted"]
    assert "1 of 3 inputs" in capsys.readouterr().err


def test_a_second_ctrl_c_does_not_disturb_the_writing(mlp, monkeypatch):
    from mollikit.cli import explain

    write = explain._write

    def write_while_interrupted(*rest):
        signal.raise_signal(signal.SIGINT)
        return write(*rest)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(explain, "_write", write_while_interrupted)
    assert main(["explain", mlp, "x.npy", "--evaluations", "64", "--quiet", "--out", "out"]) == 0
    assert Path("out/x.npz").exists()
    assert signal.getsignal(signal.SIGINT) is before
