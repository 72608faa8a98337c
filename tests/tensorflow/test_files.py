from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from mollikit_tensorflow import TensorFlowOracle, open_keras, open_saved_model  # noqa: E402
from mollikit_tensorflow.files import ModelFileError  # noqa: E402

import mollikit as mk  # noqa: E402
from mollikit.cli import main  # noqa: E402
from tests.tensorflow import nets  # noqa: E402

# Keras's own way of saving a variable, under NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning:keras"
)

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(9).standard_normal((4, 8, 8, 2)).astype(np.float32)


def test_the_model_in_its_three_forms(tmp_path):
    model = nets.mlp()
    model.save(tmp_path / "mlp.keras")
    model.export(str(tmp_path / "folder"), verbose=False)
    expected = TensorFlowOracle(model, target=3).value_and_gradient(POINTS)
    loaded = tf.saved_model.load(str(tmp_path / "folder"))
    for oracle in (
        open_keras(tmp_path / "mlp.keras", target=3),
        open_saved_model(tmp_path / "folder", target=3),
        TensorFlowOracle(loaded.signatures["serving_default"], target=3),
    ):
        assert list(oracle.input_shapes.values()) == [(6,)]
        for got, want in zip(oracle.value_and_gradient(POINTS), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_subclass_in_a_file(tmp_path):
    model = nets.normalised()
    model.save(tmp_path / "net.keras")
    got = open_keras(tmp_path / "net.keras", target=1).value_and_gradient(IMAGES)[1]
    np.testing.assert_allclose(
        got, TensorFlowOracle(model, target=1).value_and_gradient(IMAGES)[1], rtol=1e-5, atol=1e-7
    )


def test_a_folder_can_be_pickled(tmp_path):
    nets.mlp().export(str(tmp_path), verbose=False)
    oracle = open_saved_model(tmp_path, target=3)
    again = pickle.loads(pickle.dumps(oracle))
    np.testing.assert_array_equal(again.value_and_gradient(POINTS)[1], oracle.value_and_gradient(POINTS)[1])
    assert again.describe() == oracle.describe()


def test_a_signature_whose_model_is_gone(tmp_path):
    nets.mlp().export(str(tmp_path), verbose=False)
    signature = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    with pytest.raises(ValueError, match=r"deleted with the model.*keep what tf.saved_model.load returned"):
        TensorFlowOracle(signature)
    with pytest.raises(TypeError, match=r'give .signatures\["serving_default"\]'):
        TensorFlowOracle(tf.saved_model.load(str(tmp_path)))


def two_signatures(folder):
    module = tf.Module()
    spec = [tf.TensorSpec((None, 6), tf.float32, name="x")]
    module.sums = tf.function(lambda x: {"sum": tf.reduce_sum(x, 1)}, input_signature=spec)
    module.parts = tf.function(lambda x: {"first": x[:, :2], "rest": x[:, 2:] ** 2}, input_signature=spec)
    tf.saved_model.save(module, folder, signatures={"sums": module.sums, "parts": module.parts})


def test_a_choice_of_signatures_and_outputs(tmp_path):
    two_signatures(str(tmp_path))
    with pytest.raises(ModelFileError, match=r"signatures \['parts', 'sums'\]: choose one by signature="):
        open_saved_model(tmp_path)
    with pytest.raises(ModelFileError, match="choose one by signature="):
        open_saved_model(tmp_path, signature="sum")
    assert np.all(open_saved_model(tmp_path, signature="sums").value_and_gradient(POINTS)[1] == 1)
    oracle = open_saved_model(tmp_path, signature="parts", output="rest", target=0)
    np.testing.assert_allclose(oracle.value_and_gradient(POINTS)[1], 2 * POINTS * np.eye(6)[2], rtol=1e-6)
    with pytest.raises(ValueError, match=r"no output 'last': .*keys .*'rest'"):
        open_saved_model(tmp_path, signature="parts", output="last", target=0).value_and_gradient(POINTS)


def test_weights_of_a_folder_cannot_be_replaced(tmp_path):
    nets.mlp().export(str(tmp_path), verbose=False)
    oracle = open_saved_model(tmp_path, target=0)
    with pytest.raises(ValueError, match=r"bound into its graph.*give the oracle a Keras model"):
        oracle.reweighted({"kernel": np.zeros((6, 16))})
    smooth = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.2)))
    with pytest.raises(ValueError, match=r"SavedModel keep theirs"):
        smooth.estimate(oracle, POINTS[0], budget=mk.Evaluations(64), rng=0)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ModelFileError, match="no file"):
        open_keras(tmp_path / "nowhere.keras")
    (tmp_path / "text.keras").write_text("weights")
    with pytest.raises(ModelFileError, match=r"\(7 bytes\) is not a .keras file"):
        open_keras(tmp_path / "text.keras")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.keras")
    with pytest.raises(ModelFileError, match="cannot be loaded by Keras"):
        open_keras(tmp_path / "arrays.keras")
    with pytest.raises(ModelFileError, match=r"not a SavedModel: it is a folder with saved_model.pb"):
        open_saved_model(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_text("no graph")
    with pytest.raises(ModelFileError, match="is damaged"):
        open_saved_model(tmp_path / "damaged")
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "empty"))
    with pytest.raises(ModelFileError, match="has no signatures"):
        open_saved_model(tmp_path / "empty")


def test_a_class_that_is_not_registered(tmp_path):
    class Stranger(keras.layers.Layer):
        def call(self, x):
            return x * 2

    keras.Sequential([keras.Input((3,)), Stranger()]).save(tmp_path / "net.keras")
    with pytest.raises(ModelFileError, match="register_keras_serializable"):
        open_keras(tmp_path / "net.keras")


def test_a_batch_axis_fixed_above_1():
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="fixed at 4: leave it open"):
        TensorFlowOracle(fixed)


@pytest.mark.parametrize("opened", [open_keras, open_saved_model])
def test_providers_are_not_its_own(opened):
    with pytest.raises(ValueError, match="ONNX Runtime's"):
        opened("nowhere", providers=["CUDAExecutionProvider"])


@pytest.mark.parametrize("name", ["net.keras", "folder"])
def test_the_command_line_opens_them(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    model = nets.normalised()
    if name == "folder":
        model(IMAGES)
        model.export(name, verbose=False)
    else:
        model.save(name)
    np.save("image.npy", IMAGES[0])
    assert main(f"explain {name} image.npy --evaluations 64 --seed 3 --quiet --out out".split()) == 0
    told = json.loads((tmp_path / "out" / "image.json").read_text())
    assert told["oracle"]["oracle"] == "mollikit_tensorflow.TensorFlowOracle"
    with np.load(tmp_path / "out" / "image.npz") as stored:
        raw = stored["raw_gradient"]
    oracle = TensorFlowOracle(model, target="top").anchored(IMAGES[0])
    np.testing.assert_allclose(raw, oracle.value_and_gradient(IMAGES[:1])[1][0], rtol=1e-4, atol=1e-7)


def test_a_folder_of_something_else(tmp_path, capsys):
    np.save(tmp_path / "image.npy", IMAGES[0])
    words = ["explain", str(tmp_path), str(tmp_path / "image.npy"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "folders with saved_model.pb" in capsys.readouterr().err
