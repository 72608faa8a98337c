"""The demo, in short: from any folder, twice, without a deep-learning framework."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import demo
code = demo.main(sys.argv[1:]) or demo.main(sys.argv[1:])
if frameworks := {{"torch", "tensorflow", "jax"}} & sys.modules.keys():
    sys.exit(f"imported {{frameworks}}")
sys.exit(code)
"""


def test_chelsea_is_a_tiger_cat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-c", PROGRAM, "--seconds", "0.5", "--out", "shown"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the model sees   tiger cat") == 2
    for told in ("evaluations", "of the whole map", "of the view", "explained/china.png", "took"):
        assert told in done.stdout
    assert "chelsea:" in done.stderr  # the progress
    for name in ("chelsea", "china"):
        assert (tmp_path / f"shown/explained/{name}.png").stat().st_size > 10_000
        with np.load(tmp_path / f"shown/explained/{name}.npz") as stored:
            assert stored["gradient"].shape == (3, 224, 224)
            assert stored["view.pooled"].shape == (28, 28)


@pytest.mark.parametrize("seconds", ["0", "soon"])
def test_wrong_usage(tmp_path, seconds):
    words = [sys.executable, "-c", PROGRAM, "--seconds", seconds, "--out", str(tmp_path / "shown")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 2
