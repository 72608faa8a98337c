from __future__ import annotations

import inspect
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mollikit_torch import TorchOracle, open_exported  # noqa: E402
from mollikit_torch.exported import ExportedFileError  # noqa: E402
from torch import nn  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.cli import main  # noqa: E402
from mollikit.testing import OracleConformance  # noqa: E402
from tests.core.test_determinism import bits  # noqa: E402
from tests.torch import nets  # noqa: E402


def exported(path, model, *arguments, dynamic=True, keywords=None):
    """Export with example arguments, by place and by keyword, and a batch axis that is free or fixed."""
    arguments = tuple(torch.as_tensor(a) for a in arguments)
    keywords = {name: torch.as_tensor(a) for name, a in (keywords or {}).items()}
    names = [*inspect.signature(model.forward).parameters][: len(arguments)]
    rows = torch.export.Dim("rows")
    shapes = {name: {0: rows} for name in (*names, *keywords)} if dynamic else None
    torch.export.save(torch.export.export(model, arguments, keywords, dynamic_shapes=shapes), path)
    return path


TWO = (np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), np.ones((2, 4), np.int64))


class Cases(OracleConformance):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.path = self.export(tmp_path / "model.pt2")

    def oracle(self):
        return open_exported(self.path)


class TestTwoInputs(Cases):
    def export(self, path):
        return exported(path, nets.TwoInputs().eval(), *TWO[:2], keywords={"mask": TWO[2]})

    def points(self, m, rng):
        return {
            "a": rng.standard_normal((m, 3)).astype(np.float32),
            "b": rng.standard_normal((m, 4)).astype(np.float32) + 2,
        }

    def held(self, m, rng):
        return {"mask": rng.integers(0, 2, (m, 4)), "target": rng.integers(0, 4, m)}


class TestCnn(Cases):
    def export(self, path):
        return exported(path, nets.normalised(), np.ones((2, 2, 8, 8), np.float32))

    def points(self, m, rng):
        return rng.standard_normal((m, 2, 8, 8)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}

    def test_it_is_the_module_that_was_exported(self):
        points, held = self.points(3, np.random.default_rng(1)), {"target": np.array([0, 3, 1])}
        got = self.oracle().value_and_gradient(points, **held)
        expected = TorchOracle(nets.normalised()).value_and_gradient(points, **held)
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-4, atol=1e-7)


class TestCnnOfASingleRow(TestCnn):
    """A batch axis fixed at 1."""

    def export(self, path):
        return exported(path, nets.normalised(), np.ones((1, 2, 8, 8), np.float32), dynamic=False)


def test_its_weights_are_smoothed_as_those_of_the_module(tmp_path):
    path = exported(tmp_path / "cnn.pt2", nets.normalised(), np.ones((2, 2, 8, 8), np.float32))
    oracle, module = open_exported(path, target=1), TorchOracle(nets.normalised(), target=1)
    assert list(oracle.weights) == list(module.weights)
    smooth = mk.Pathwise(mk.Gaussian(0.3), weights=mk.Gaussian(mk.OfMagnitude(0.2)), block=16)
    image, budget = (
        np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32),
        mk.Evaluations(128),
    )
    own = oracle.value_and_gradient(image[None])[1]
    run = smooth.estimate(oracle, image, budget=budget, rng=3)
    expected = smooth.estimate(module, image, budget=budget, rng=3)
    np.testing.assert_allclose(run.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    with ThreadPoolExecutor(4) as executor:
        again = smooth.estimate(oracle, image, budget=budget, rng=3, executor=executor)
    assert bits(again) == bits(run)
    other = oracle.reweighted({"head.bias": np.zeros(4, np.float32)})
    sent = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(
        sent.value_and_gradient(image[None])[0], other.value_and_gradient(image[None])[0]
    )
    np.testing.assert_array_equal(oracle.value_and_gradient(image[None])[1], own)


class Counting(nets.Normalised):
    """Counts its calls in a buffer, and adds the count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, image):
        self.calls.add_(1)
        return super().forward(image) + self.calls


def test_a_state_that_the_program_writes_starts_anew_with_each_call(tmp_path):
    model = nets.seeded(Counting(), 1)
    oracle = open_exported(exported(tmp_path / "c.pt2", model, np.ones((2, 2, 8, 8), np.float32)), target=1)
    images = np.ones((3, 2, 8, 8), np.float32)
    first, second = (oracle.value_and_gradient(images)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_shapes_and_pickling(tmp_path):
    oracle = open_exported(exported(tmp_path / "two.pt2", nets.TwoInputs().eval(), *TWO), target=1)
    assert oracle.input_shapes == {"a": (3,), "b": (4,)}
    points = {"a": TWO[0], "b": TWO[1]}
    expected = oracle.value_and_gradient(points, mask=TWO[2])[1]
    again = pickle.loads(pickle.dumps(oracle)).value_and_gradient(points, mask=TWO[2])[1]
    np.testing.assert_array_equal(again["a"], expected["a"])
    with pytest.raises(ValueError, match=r"takes \['a', 'b', 'mask'\]; not given: \['mask'\]"):
        oracle.value_and_gradient(points)
    with pytest.raises(ValueError, match=r"\(m, 3\) and got \(2, 4\)"):
        oracle.value_and_gradient({"a": TWO[1], "b": TWO[1]}, mask=TWO[2])
    with pytest.raises(ValueError, match=r"mapping of arrays by input name: the model has \['a', 'b'\]"):
        oracle.value_and_gradient(TWO[0], mask=TWO[2])


def test_an_exported_train_mode_is_refused(tmp_path):
    for model, x in ((nets.Normalised(), np.ones((2, 2, 8, 8), np.float32)), (nn.Dropout(), np.ones((2, 3)))):
        path = exported(tmp_path / "train.pt2", model.train(), x)
        with pytest.raises(ExportedFileError, match=r"in train mode.*model.eval\(\) before"):
            open_exported(path)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ExportedFileError, match="no file"):
        open_exported(tmp_path / "nowhere.pt2")
    (tmp_path / "text.pt2").write_text("weights")
    with pytest.raises(ExportedFileError, match=r"\(7 bytes\) is not an exported program"):
        open_exported(tmp_path / "text.pt2")
    torch.save(nets.mlp().state_dict(), tmp_path / "state.pt2")
    with pytest.raises(ExportedFileError, match="no exported program"):
        open_exported(tmp_path / "state.pt2")
    path = exported(tmp_path / "fixed.pt2", nets.mlp(), np.ones((4, 6), np.float32), dynamic=False)
    with pytest.raises(ExportedFileError, match="fixed at 4: export with dynamic_shapes"):
        open_exported(path)
    path = exported(tmp_path / "ids.pt2", nn.Embedding(5, 3).eval(), np.zeros((2, 4), np.int64))
    with pytest.raises(ExportedFileError, match="no input of floats"):
        open_exported(path)


def test_providers_are_not_its_own(tmp_path):
    with pytest.raises(ValueError, match="ONNX Runtime's"):
        open_exported(tmp_path / "nowhere.pt2", providers=["CUDAExecutionProvider"])


def test_the_command_line_opens_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "cnn.pt2", nets.normalised(), np.ones((2, 2, 8, 8), np.float32))
    np.save("image.npy", np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32))
    words = [
        "explain",
        "cnn.pt2",
        "image.npy",
        "--evaluations",
        "64",
        "--seed",
        "3",
        "--quiet",
        "--out",
        "out",
    ]
    assert main(words) == 0
    told = json.loads((tmp_path / "out" / "image.json").read_text())
    assert told["oracle"]["oracle"] == "mollikit_torch.TorchOracle"
    with np.load(tmp_path / "out" / "image.npz") as stored:
        raw = stored["raw_gradient"]
        assert stored["gradient"].shape == (2, 8, 8)
    oracle = TorchOracle(nets.normalised(), target="top")
    image = np.load("image.npy")
    np.testing.assert_allclose(
        raw, oracle.anchored(image).value_and_gradient(image[None])[1][0], rtol=1e-4, atol=1e-7
    )
