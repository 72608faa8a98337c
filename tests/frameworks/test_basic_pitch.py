"""A real network that ships as a SavedModel and as ONNX: both forms give one gradient."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mollikit as mk

pytest.importorskip("tensorflow")
pytest.importorskip("onnxruntime")
FOUND = find_spec("basic_pitch")
if FOUND is None or FOUND.origin is None or find_spec("tf_keras") is None:
    pytest.skip(
        "needs the model in basic-pitch, and tf_keras to read it: "
        "pip install --no-deps basic-pitch==0.4.0 tf_keras==2.21.0",
        allow_module_level=True,
    )

from mollikit_onnx import OnnxOracle  # noqa: E402
from mollikit_tensorflow import open_saved_model  # noqa: E402

HERE = Path(FOUND.origin).parent / "saved_models" / "icassp_2022"
# Output names of the SavedModel and of the ONNX file, and one place: frame 80, pitch 40.
NAMES = {"note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2"}
# A second or two of three tones with their overtones, at 22050 Hz, as the model takes it.
TIME = np.arange(43844) / 22050
AUDIO = sum(np.sin(2 * np.pi * f * TIME) * 0.1 for f in (220, 440, 554.37, 659.26))[:, None].astype("f")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tf_keras")
@pytest.mark.parametrize("name", ["note", pytest.param("onset", marks=pytest.mark.full)])
def test_the_saved_model_and_the_onnx_file_agree(name):
    forms = (
        open_saved_model(HERE / "nmp", target=(80, 40), output=name),
        OnnxOracle(HERE / "nmp.onnx", target=(80, 40), output=NAMES[name], values=True),
    )
    smooth = mk.Pathwise(mk.Gaussian(mk.OfRange(0.05)), sampler=mk.Antithetic(), block=2)
    ours, theirs = (smooth.estimate(oracle, AUDIO, budget=mk.Evaluations(4), rng=0) for oracle in forms)
    scale = np.abs(theirs.gradient).max()
    assert np.abs(ours.gradient - theirs.gradient).max() < 1e-3 * scale
    np.testing.assert_allclose(ours.output.value, theirs.output.value, rtol=1e-4)
    assert scale > 0
