"""Keras nets, as Keras and tf2onnx write them down, against TensorFlow's gradients."""

import numpy as np
import pytest
from mollikit_onnx import OnnxOracle, OpsetError, UnsupportedOperatorError, pruned, vjp
from mollikit_onnx.loading import ModelFileError

from tests.onnx.gradient_checks import run_onnxruntime

pytest.importorskip("tensorflow", reason="TensorFlow differentiates the nets")
pytest.importorskip("torch", reason="the tolerance is that of the other architectures")

pytest.importorskip("tf2onnx", reason="Keras exports by it")

import keras
from keras import layers

from tests.onnx.architectures.keras_nets import NETS, by_keras, by_tf2onnx, exported, points_and_gradient
from tests.onnx.architectures.truth import TOLERANCE, relative_error


@pytest.mark.parametrize("name", NETS)
def test_as_keras_exports(name, tmp_path):
    check(name, by_keras(name, tmp_path / "model.onnx"))


@pytest.mark.parametrize(("name", "opset"), [(name, (13, 18)[k % 2]) for k, name in enumerate(NETS)])
def test_as_tf2onnx_converts(name, opset):
    check(name, by_tf2onnx(name, opset))


def check(name, model):
    """At batches other than that of the export."""
    (port,), (output,) = model.graph.input, model.graph.output
    gradient = pruned(vjp(model, [port.name], [output.name]), [f"{port.name}.gradient"])
    for batch in (1, 3):
        points, cotangent, exact = points_and_gradient(name, batch)
        feeds = {port.name: points, f"{output.name}.cotangent": cotangent}
        (got,) = run_onnxruntime(gradient, feeds)
        assert got.shape == exact.shape
        assert relative_error(got, exact) <= TOLERANCE


def test_an_exact_gelu_is_refused_with_its_mend(tmp_path):
    """Of it tf2onnx leaves an operator that neither ONNX nor ONNX Runtime has; the approximate one runs."""

    def oracle(approximate, opset):
        net = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
        net.add(layers.Activation(lambda x: keras.activations.gelu(x, approximate=approximate)))
        return OnnxOracle(exported(net, (4,), tmp_path / "gelu.onnx", opset_version=opset), target=1)

    points = np.ones((2, 4), np.float32)
    for opset, error in ((15, OpsetError), (18, UnsupportedOperatorError)):
        exact = oracle(False, opset)
        with pytest.raises(
            error, match=r"operator Erfc.*tf2onnx.*Erfc\(x\) is 1 - Erf\(x\).*approximate=True"
        ):
            exact.value_and_gradient(points)
        with pytest.raises(ModelFileError, match=r"Erfc.*Keras gelu: with approximate=True"):
            exact.predict(points)
    assert np.abs(oracle(True, 15).value_and_gradient(points)[1]).min() > 0
