"""Keras nets, as Keras and tf2onnx write them down, against TensorFlow's gradients."""

import pytest
from mollikit_onnx import pruned, vjp

from tests.onnx.gradient_checks import run_onnxruntime

pytest.importorskip("tensorflow", reason="TensorFlow differentiates the nets")
pytest.importorskip("torch", reason="the tolerance is that of the other architectures")

pytest.importorskip("tf2onnx", reason="Keras exports by it")

from tests.onnx.architectures.keras_nets import NETS, by_keras, by_tf2onnx, points_and_gradient
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
