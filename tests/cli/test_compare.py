"""``mollikit compare`` as a shell calls it."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mollikit.cli import main
from tests.cli.conftest import COMMAND

QUICK = ["--rounds", "4", "--seed", "0", "--evaluations", "32,64"]


def test_it_writes_a_report_a_table_and_a_record(classifier, photo, capsys):
    assert main(["compare", classifier, photo, "--view", "pooled", "--quiet", *QUICK]) == 0
    assert capsys.readouterr().out == ""
    assert {path.name for path in Path("comparison").iterdir()} == {
        "report.html",
        "comparison.csv",
        "comparison.json",
    }
    told = json.loads(Path("comparison/comparison.json").read_text())
    rows = list(csv.DictReader(Path("comparison/comparison.csv").read_text().splitlines()))
    assert {row["quantity"] for row in rows} == {"map", "summed", "pooled"}
    assert [float(row["error"]) for row in rows] == [row["error"] for row in told["rows"]]
    assert told["rounds"] == 4
    assert told["quantity"] == "pooled"
    assert told["interrupted"] is False
    text = Path("comparison/report.html").read_text()
    assert "photo.png: gradient of" in text
    assert text.count("<figure") == 15


def test_it_tells_the_table_and_the_recommendation(mlp, capsys):
    asked = ["compare", mlp, "x.npy", "--schemes", "independent,recentred:4,sobol:4", "--out", "new", *QUICK]
    assert main(asked) == 0
    out = capsys.readouterr().out
    told = json.loads(Path("new/comparison.json").read_text())
    assert told["recommendation"] in out
    assert out.count("sobol:4") >= 2
    assert "report.html" in out


def test_schemes_that_learn_have_names(mlp, capsys):
    asked = ["compare", mlp, "x.npy", "--schemes", "independent,adaptive,subspace:4", "--out", "new"]
    assert main([*asked, "--rounds", "4", "--seed", "0", "--evaluations", "64"]) == 0
    told = json.loads(Path("new/comparison.json").read_text())
    assert told["provenance"]["schemes"]["subspace:4"]["64"].startswith("Subspace(")
    assert "directions=4" in told["provenance"]["schemes"]["subspace:4"]["64"]
    assert capsys.readouterr().out.count("adaptive") >= 1


def test_json_is_alone_on_standard_output(mlp, capsys):
    assert main(["compare", mlp, "x.npy", "--schemes", "independent,antithetic", "--json", *QUICK]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(Path("comparison/comparison.json").read_text())
    assert "antithetic" in captured.err


def test_a_folder_is_replaced_only_when_asked(mlp, capsys):
    asked = ["compare", mlp, "x.npy", "--schemes", "independent,antithetic", "--quiet", *QUICK]
    assert main(asked) == 0
    assert main(asked) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*asked, "--force"]) == 0
    Path("comparison/mine.txt").write_text("mine")
    assert main([*asked, "--force"]) == 1
    assert Path("comparison/mine.txt").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--schemes", "independent"], 2, "nothing to compare"),
        (["--schemes", "independent,best"], 2, "not a sampler"),
        (["--schemes", "best"], 2, "not a sampler"),
        (["--evaluations", "8"], 2, "at least 16"),
        (["--evaluations", "64,many"], 2, "whole number"),
        (["--rounds", "2"], 2, "at least 4"),
        (["--view", "pooled"], 2, "--view pooled is for images"),
        (["--relative-error", "-1"], 2, "positive number"),
        (["--schemes", "independent,local-blocks"], 2, "grid"),
        (["--schemes", "independent,sobol:64", "--evaluations", "64"], 2, "at least 512"),
        (["--schemes", "independent,adaptive:9"], 2, "pilot"),
        (["--schemes", "independent,adaptive:64", "--evaluations", "64"], 2, "pilot of 64"),
        (["--schemes", "independent,subspace:many"], 2, "subspace:16"),
        (["--schemes", "independent,subspace:0"], 2, "directions"),
        (["--schemes", "independent,recentred:8", "--block", "3"], 2, "'recentred:8': block=3"),
        (["--scale", "bounds:0,1"], 2, "outside"),
        (["--target", "7"], 2, "7"),
        (["--provider", "AbacusExecutionProvider"], 2, "Abacus"),
    ],
)
def test_what_does_not_fit_is_refused(mlp, capsys, words, code, told):
    try:
        ended = main(["compare", mlp, "x.npy", *words])
    except SystemExit as left:
        ended = left.code
    assert ended == code
    assert told in capsys.readouterr().err
    assert not Path("comparison").exists()
    assert not list(Path().glob(".comparison*"))


def test_ctrl_c_keeps_what_was_measured(classifier, photo):
    asked = [*COMMAND, "compare", classifier, photo, "--seconds", "600", "--rounds", "100000", "--seed", "0"]
    run = subprocess.Popen(
        asked, stderr=subprocess.PIPE, text=True, env=os.environ | {"TQDM_MININTERVAL": "0"}
    )
    seen = ""
    began = time.monotonic()
    # Six turns of eight schemes: more than four rounds.
    while seen.count("evaluations") < 60:
        assert time.monotonic() - began < 120, seen
        seen += run.stderr.read(64)
    run.send_signal(signal.SIGINT)
    _, rest = run.communicate(timeout=60)
    assert run.returncode == 130, rest
    assert "interrupted" in rest
    told = json.loads(Path("comparison/comparison.json").read_text())
    assert told["interrupted"] is True
    assert told["rounds"] >= 4
    assert "(interrupted)" in Path("comparison/report.html").read_text()
