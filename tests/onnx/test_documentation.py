"""The Python of docs/onnx-gradients.md runs, in its order."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.onnx import models

PAGE = Path(__file__).parents[2] / "docs" / "onnx-gradients.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(models.cnn(), "model.onnx")
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) > 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    slopes, hessian = names["slopes"], names["hessian_times_v"]
    assert isinstance(slopes, np.ndarray)
    assert slopes.shape == (3, 2, 8, 8)
    assert np.abs(slopes).sum() > 0
    # The network is linear but for Relu.
    np.testing.assert_array_equal(hessian, np.zeros_like(slopes))
    assert Path("gradient.onnx").is_file()
