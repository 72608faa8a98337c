from __future__ import annotations

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.moments import Moments
from tests.core.closed_forms import waves
from tests.core.test_determinism import bits
from tests.core.test_views import IMAGE, SPLIT, Image, Split

X = np.linspace(-1, 1, 6)
SMOOTH = mk.Pathwise(mk.Gaussian(0.5), block=16)
BUDGET = mk.Evaluations(64)


@pytest.fixture
def estimate():
    return SMOOTH.estimate(waves(), X, budget=BUDGET, rng=1)


@pytest.mark.parametrize(
    ("oracle", "inputs", "view"),
    [
        (Image(), IMAGE, mk.ChannelSum(0).then(mk.Pool(2))),
        (Split(), SPLIT, mk.Input("text")),
        (waves(1, 1), np.float64(0.3), lambda g: g),
    ],
    ids=["image", "several inputs", "a number"],
)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, oracle, inputs, view):
    if np.ndim(inputs) == 0 and not isinstance(inputs, dict):

        class Scalar:
            def value_and_gradient(self, points):
                return np.cos(points), -np.sin(points)

        oracle = Scalar()
    views = {"a view.mean": view}
    estimate = SMOOTH.estimate(oracle, inputs, budget=BUDGET, rng=1, views=views)
    path = tmp_path / "estimate.npz"
    estimate.save(path)
    loaded = mk.Estimate.load(path)
    assert bits(loaded) == bits(estimate)
    assert repr(loaded) == repr(estimate)
    assert loaded.layout == estimate.layout
    assert loaded.provenance == estimate.provenance
    assert loaded.block == estimate.block
    np.testing.assert_equal(loaded.gradient, estimate.gradient)
    assert os.listdir(tmp_path) == ["estimate.npz"]


def test_a_loaded_estimate_can_be_gone_on_with(tmp_path, estimate):
    estimate.save(tmp_path / "half")
    budget = mk.Evaluations(160)
    resumed = SMOOTH.estimate(waves(), X, budget=budget, rng=1, resume=mk.Estimate.load(tmp_path / "half"))
    assert bits(resumed) == bits(SMOOTH.estimate(waves(), X, budget=budget, rng=1))


def test_an_oracle_without_values_gives_no_output(tmp_path):
    class GradientAlone:
        def value_and_gradient(self, points):
            return None, np.cos(points)

    estimate = SMOOTH.estimate(GradientAlone(), X, budget=BUDGET, rng=1)
    assert estimate.output is None
    estimate.save(tmp_path / "estimate.npz")
    assert mk.Estimate.load(tmp_path / "estimate.npz").output is None


class Payload:
    """What an attacker would put into a file that is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_payload(path, canary):
    np.save(path, np.array([Payload(canary)], dtype=object), allow_pickle=True)


def write_payload_inside(path, canary):
    np.savez(path, about=np.array(json.dumps({"format": 1, "n_groups": 2, "leaves": []})))
    inner = path.with_suffix(".npy")
    write_payload(inner, canary)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "gradient.mean.npy")
        archive.write(inner, "gradient.m2.npy")


@pytest.mark.parametrize(
    "write",
    [
        lambda path, _: path.write_bytes(b""),
        lambda path, _: path.write_bytes(os.urandom(1000)),
        lambda path, _: path.write_bytes(b"PK\x03\x04 not a zip"),
        lambda path, _: np.savez(path, about=np.array("no json")),
        lambda path, _: np.savez(path, gradient=np.ones(3)),
        lambda path, _: np.savez(path, about=np.array(json.dumps({"format": 2}))),
        write_payload,
        write_payload_inside,
    ],
    ids=[
        "empty",
        "noise",
        "broken zip",
        "no json",
        "others' arrays",
        "next format",
        "pickle",
        "pickle inside",
    ],
)
def test_what_save_did_not_write_is_refused_and_never_run(tmp_path, write):
    path, canary = tmp_path / "file.npz", tmp_path / "canary"
    with open(path, "wb"):
        pass
    write(path, canary)
    if path.with_suffix(".npz.npy").exists():
        path.with_suffix(".npz.npy").rename(path)
    with pytest.raises(ValueError, match=r"file.npz' is not an estimate that Estimate.save wrote"):
        mk.Estimate.load(path)
    assert not canary.exists()


def test_a_truncated_file_is_refused(tmp_path, estimate):
    path = tmp_path / "estimate.npz"
    estimate.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is not an estimate"):
        mk.Estimate.load(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        mk.Estimate.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, estimate, error):
    path = tmp_path / "estimate.npz"
    estimate.save(path)
    before = path.read_bytes()

    def half_written(file, **arrays):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", half_written)
    with pytest.raises(type(error)):
        estimate.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["estimate.npz"]


def test_a_folder_that_is_not_there_is_named(tmp_path, estimate):
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        estimate.save(tmp_path / "no-such-folder" / "estimate.npz")


def test_saved_files_can_be_read_like_others(tmp_path, estimate):
    estimate.save(tmp_path / "estimate.npz")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "estimate.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_representation_is_one_telling_line(estimate):
    line = repr(estimate)
    assert "\n" not in line
    assert line.startswith("Estimate((6,), error ")
    assert "64 evaluations in 8 groups" in line
    assert "stopped by Evaluations(n=64)" in line
    nothing = SMOOTH.estimate(waves(), np.full(6, 1e-9), budget=mk.Evaluations(16), rng=1)
    assert "unresolved" in repr(nothing) or nothing.relative_error < np.inf


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_students(estimate, level):
    low, high = estimate.interval(level)
    expected = stats.t.interval(level, 7, estimate.gradient, estimate.standard_error)
    np.testing.assert_allclose((low, high), expected, rtol=1e-12)
    low, high = estimate.output.interval(level)
    expected = stats.t.interval(level, 7, estimate.output.value, estimate.output.standard_error)
    np.testing.assert_allclose((low, high), expected, rtol=1e-12)


def test_intervals_of_several_inputs_have_their_form():
    estimate = SMOOTH.estimate(Split(), SPLIT, budget=BUDGET, rng=1)
    low, high = estimate.interval()
    for name, array in SPLIT.items():
        assert low[name].shape == high[name].shape == array.shape
        assert (low[name] <= estimate.gradient[name]).all()


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, float("nan")])
def test_levels_out_of_range_are_refused(estimate, level):
    with pytest.raises(ValueError, match="level="):
        estimate.interval(level)


def test_moments_are_central_and_merge_like_one_sample():
    # E[x^2] - E[x]^2 would lose every digit here: the spread is 1e-9 of the mean.
    values = 1e9 + np.random.default_rng(0).standard_normal((37, 4))
    whole = Moments.of(values)
    merged = Moments.of(values[:5]).merged(Moments.of(values[5:6])).merged(Moments.of(values[6:]))
    for moments in (whole, merged):
        assert moments.n == 37
        np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-15)
        np.testing.assert_allclose(moments.standard_error, values.std(0, ddof=1) / np.sqrt(37), rtol=1e-6)


def test_the_provenance_is_fit_for_json_and_repeats_the_run(estimate):
    about = json.loads(json.dumps(estimate.provenance))
    again = mk.Pathwise(mk.Gaussian(0.5), block=about["block"]).estimate(
        waves(), X, budget=mk.Evaluations(about["n_evaluations"]), rng=(about["seed"], about["item"])
    )
    assert bits(again) == bits(estimate)


@dataclass(frozen=True)
class Scaled:
    """A model that tells of itself."""

    factor: float

    def value_and_gradient(self, points, **held):
        return None, self.factor * points


def test_an_estimate_of_another_model_is_not_gone_on_with():
    smooth, x = mk.Pathwise(mk.Gaussian(0.1)), np.ones(3)
    first = smooth.estimate(Scaled(1.0), x, budget=mk.Evaluations(32), rng=0)
    with pytest.raises(ValueError, match=r"oracle: Scaled\(factor=1\.0\) then, Scaled\(factor=2\.0\) now"):
        smooth.estimate(Scaled(2.0), x, budget=mk.Evaluations(64), rng=0, resume=first)
    assert smooth.estimate(Scaled(1.0), x, budget=mk.Evaluations(64), rng=0, resume=first).n_evaluations == 64


def test_what_is_no_estimate_and_no_executor_is_named():
    smooth, x, budget = mk.Pathwise(mk.Gaussian(0.1)), np.ones(3), mk.Evaluations(32)
    with pytest.raises(TypeError, match="is not an Estimate; read a saved one"):
        smooth.estimate(Scaled(1.0), x, budget=budget, resume="estimate.npz")
    with pytest.raises(TypeError, match="give one that is open"):
        smooth.estimate(Scaled(1.0), x, budget=budget, executor=ThreadPoolExecutor)


def test_a_map_of_zeros_is_not_called_converged():
    estimate = mk.Pathwise(mk.Gaussian(0.1)).estimate(Scaled(0.0), np.ones(3), budget=mk.Evaluations(64))
    assert estimate.relative_error == np.inf
    assert "unresolved" in repr(estimate)
