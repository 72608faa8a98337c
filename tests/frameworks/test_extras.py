"""An adapter without its framework names the extra that brings it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("adapter", "module"),
    [
        ("onnx", "onnx"),
        ("onnx", "onnxruntime"),
        ("torch", "torch"),
        ("tensorflow", "tensorflow"),
        ("jax", "jax"),
    ],
)
def test_the_extra_is_named(adapter, module):
    program = f"import sys; sys.modules[{module!r}] = None; import mollikit_{adapter}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"mollikit_{adapter} needs the module {module}: pip install 'mollikit[{adapter}]'" in done.stderr
