"""The ONNX model computes what the PyTorch package computes, and sees in the photos what is there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import efficientnet_lite0
import numpy as np
import onnx
import onnxruntime
import photos
import pytest

EXAMPLES = Path(efficientnet_lite0.__file__).parent


def logits(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


@pytest.fixture(scope="module")
def weights():
    return efficientnet_lite0.pretrained_weights()


@pytest.fixture(scope="module")
def model(weights):
    return efficientnet_lite0.build(weights)


@pytest.fixture(scope="module")
def seen(model):
    """Class probabilities of the three photos, by photo."""
    names = ("chelsea", "coffee", "china")
    images = np.stack([photos.model_input(getattr(photos, name)()) for name in names])
    exponential = np.exp(logits(model, images).astype(np.float64))
    return dict(zip(names, exponential / exponential.sum(1, keepdims=True), strict=True))


@pytest.mark.parametrize(
    ("photo", "name", "probability"),
    [("chelsea", "tiger cat", 0.39), ("coffee", "espresso", 0.95), ("china", "palace", 0.31)],
)
def test_the_model_sees_what_is_in_the_photo(seen, photo, name, probability):
    top = int(seen[photo].argmax())
    assert efficientnet_lite0.class_names()[top] == name
    assert seen[photo][top] == pytest.approx(probability, abs=0.01)


def torch_logits(weights, images, **parameters):
    torch = pytest.importorskip("torch", reason="torch is the independent implementation")
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="it is the independent implementation")
    network = package.EfficientNet.from_name("efficientnet-lite0", **parameters).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(
    ("image_size", "shape", "fold"),
    [
        ((224, 224), (224, 224), True),
        ((224, 224), (224, 224), False),
        ((224, 224), (112, 112), True),  # the padding of 224 on a smaller image, as in the package
        ((112, 112), (112, 112), True),  # an odd size before the last halving
        ((90, 149), (90, 149), True),
    ],
)
def test_logits_are_those_of_the_torch_package(weights, image_size, shape, fold):
    images = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype(np.float32)
    expected = torch_logits(weights, images, image_size=list(image_size))
    model = efficientnet_lite0.build(weights, image_size=image_size, fold_batch_norm=fold)
    # Single precision through 49 convolutions: a few units in the last place of the largest logit.
    np.testing.assert_allclose(logits(model, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_padding_decides_the_logits(weights):
    # The control for the test above: the padding of another size is seen at its tolerance.
    images = np.random.default_rng(0).normal(size=(1, 3, 112, 112)).astype(np.float32)
    ours = logits(efficientnet_lite0.build(weights, image_size=(224, 224)), images)
    theirs = torch_logits(weights, images, image_size=[112, 112])
    assert np.abs(ours - theirs).max() > 1e-2 * np.abs(theirs).max()


def test_no_deep_learning_framework_is_imported():
    script = """
import sys
import efficientnet_lite0, photos
efficientnet_lite0.build(efficientnet_lite0.pretrained_weights())
photos.model_input(photos.chelsea())
print({"torch", "tensorflow", "jax"} & set(sys.modules))
"""
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=EXAMPLES, check=True, capture_output=True).stdout.strip() == b"set()"


def test_graph_is_plain_and_its_sizes_are_free(model):
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 0
    assert {node.op_type for node in model.graph.node} == {
        "Conv",
        "Clip",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    }
    assert {node.domain for node in model.graph.node} == {""}
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, "H", "W"]
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_sizes_can_be_fixed(weights):
    model = efficientnet_lite0.build(weights, batch=2, height=224, width=224, opset=13)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    assert shapes["_conv_head"] == [2, 1280, 7, 7]


def test_wrong_weights_are_named(weights):
    lacking = {name: array for name, array in weights.items() if name != "_fc.bias"}
    with pytest.raises(ValueError, match=r"lack '_fc\.bias'"):
        efficientnet_lite0.build(lacking)
    with pytest.raises(ValueError, match=r"'_fc.bias' has shape \(3,\) where \(1000,\)"):
        efficientnet_lite0.build({**weights, "_fc.bias": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"no place for.*'_se\.weight'"):
        efficientnet_lite0.build({**weights, "_se.weight": np.zeros(3, np.float32)})


def test_the_command_writes_the_model_and_its_description(tmp_path, model):
    out = tmp_path / "lite0.onnx"
    script = [sys.executable, str(EXAMPLES / "efficientnet_lite0.py"), str(out)]
    subprocess.run(script, check=True, capture_output=True)
    assert onnx.load(out) == model
    description = tomllib.loads(out.with_suffix(".toml").read_text("utf-8"))
    image = description["image"]
    assert image["size"] == [224, 224]
    assert image["crop_fraction"] == 0.875
    assert image["layout"] == "NCHW"
    np.testing.assert_allclose(
        (np.array([0, 255]) / 255 - image["mean"][0]) / image["std"][0], [-127 / 128, 1]
    )
    classes = description["output"]["classes"]
    assert len(set(classes)) == 1000
    assert (classes[0], classes[282], classes[967]) == ("tench", "tiger cat", "espresso")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lite0.onnx", "lite0.toml"]


def test_the_command_leaves_nothing_half_written(tmp_path):
    written = tmp_path / "first"
    unwritable = tmp_path / "absent" / "second"
    with pytest.raises(OSError, match="absent"):
        efficientnet_lite0.write_whole({written: b"1", unwritable: b"2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "culprit"), [("model.bin", "does not end in .onnx"), ("absent/m.onnx", "does not exist")]
)
def test_the_command_refuses_a_bad_path(tmp_path, capsys, name, culprit):
    with pytest.raises(SystemExit) as exit_:
        efficientnet_lite0.main([str(tmp_path / name)])
    assert exit_.value.code == 2
    assert culprit in capsys.readouterr().err


def test_the_crop_is_the_centre_of_the_photo():
    photo = np.zeros((256, 512, 3), np.uint8)
    photo[16:240, 144:368] = 200
    crop = photos.centre_crop(photo)
    assert crop.shape == (224, 224, 3)
    assert (crop == 200).all()
    assert photos.model_input(photo).shape == (3, 224, 224)


def test_photos_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"float64 \(4, 4, 3\)"):
        photos.model_input(np.zeros((4, 4, 3)))
