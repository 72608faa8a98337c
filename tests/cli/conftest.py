"""Small ONNX models and inputs for the command line, each test in a folder of its own."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

# Runs the command line as a shell does. A shell's background job ignores SIGINT; here it counts.
COMMAND = [
    sys.executable,
    "-c",
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from mollikit.cli import main\n"
    "sys.exit(main(sys.argv[1:]))",
]


def _model(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes, "small", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])


def _weights(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def classifier(folder):
    """A convolutional classifier of photos of any size into cat, dog and "Tiger Cat"; cnn.toml says 16x16."""
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["filtered"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["filtered"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "bias"], ["logits"]),
    ]
    weights = _weights(0, w=(6, 3, 3, 3), b=(6,), head=(6, 3), bias=(3,))
    _model("cnn.onnx", nodes, [_floats("image", 3, "H", "W")], [_floats("logits", 3)], weights)
    Path("cnn.toml").write_text(
        "[image]\nsize = [16, 16]\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
        '[output]\nclasses = ["cat", "dog", "Tiger Cat"]\n'
    )
    return "cnn.onnx"


@pytest.fixture
def photo(folder):
    """A photo of 20 x 24 pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return "photo.png"


@pytest.fixture
def mlp(folder):
    """A perceptron of 5 inputs and 3 outputs, and x.npy for it."""
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "second"], ["y"]),
    ]
    weights = _weights(2, first=(5, 16), second=(16, 3))
    _model("mlp.onnx", nodes, [_floats("x", 5)], [_floats("y", 3)], weights)
    np.save("x.npy", np.linspace(-1, 1, 5, dtype=np.float32))
    return "mlp.onnx"


@pytest.fixture
def two_inputs(folder):
    """relu(a A) * (b B) + table[row], of two inputs that are smoothed and an index that is held; ab.npz."""
    nodes = [
        helper.make_node("Gemm", ["a", "A"], ["left"]),
        helper.make_node("Relu", ["left"], ["active"]),
        helper.make_node("Gemm", ["b", "B"], ["right"]),
        helper.make_node("Mul", ["active", "right"], ["product"]),
        helper.make_node("Gather", ["table", "row"], ["shift"]),
        helper.make_node("Add", ["product", "shift"], ["y"]),
    ]
    row = helper.make_tensor_value_info("row", TensorProto.INT64, ["N"])
    weights = _weights(3, A=(4, 2), B=(3, 2), table=(5, 2))
    _model("two.onnx", nodes, [_floats("a", 4), _floats("b", 3), row], [_floats("y", 2)], weights)
    np.savez("ab.npz", a=np.arange(4, dtype=np.float32), b=np.arange(3, dtype=np.float32), row=np.int64(4))
    return "two.onnx"
