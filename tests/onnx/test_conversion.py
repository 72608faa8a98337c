"""Models of old operator sets compute afterwards what they computed before."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import OpsetError, vjp
from onnx import ModelProto, numpy_helper

from tests.onnx.gradient_checks import run_onnxruntime


def old_model(node: str, opset: int, **arrays: np.ndarray) -> ModelProto:
    graph = f"m (float[1,2,6,5] x) => (float[A,B,C,D] y) {{ {node} }}"
    model = onnx.parser.parse_model(f'<ir_version: 4, opset_import: ["" : {opset}]> {graph}')
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    return model


def assert_same_function(model: ModelProto) -> None:
    """The forward output is the old one but for rounding, and the gradient fits it."""
    rng = np.random.default_rng(0)
    x, d = (rng.standard_normal((1, 2, 6, 5)).astype(np.float32) for _ in range(2))
    (y,) = run_onnxruntime(model, {"x": x})
    g = rng.standard_normal(y.shape).astype(np.float32)
    got, gradient = run_onnxruntime(vjp(model, ["x"], ["y"]), {"x": x, "y.cotangent": g})
    np.testing.assert_allclose(got, y, rtol=1e-6, atol=1e-6)
    h = 1e-3
    ahead, behind = (run_onnxruntime(model, {"x": x + s * h * d})[0] for s in (1, -1))
    # The rounding of y over h, and h^2.
    np.testing.assert_allclose(np.vdot(gradient, d), np.vdot(g, ahead - behind) / (2 * h), rtol=0, atol=2e-2)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 1.5, 3]])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_resizing_puts_the_first_elements_over_each_other(
    operator: str, opset: int, scales: list[float], mode: str
) -> None:
    node = f'y = {operator}<mode="{mode}">(x, s)'
    assert_same_function(old_model(node, opset, s=np.array(scales, np.float32)))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_with_scales_as_attribute(mode: str) -> None:
    assert_same_function(old_model(f'y = Upsample<mode="{mode}", scales=[1.0, 1.0, 2.0, 3.0]>(x)', 7))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [[1, 1, 0.5, 0.5], [1, 1, 0.6, 0.7]])
def test_shrinking_rounds_up(scales: list[float], mode: str) -> None:
    assert_same_function(old_model(f'y = Resize<mode="{mode}">(x, s)', 10, s=np.array(scales, np.float32)))


def test_rounding_both_ways_is_refused() -> None:
    model = old_model("y = Resize(x, s)", 10, s=np.array([1, 1, 2, 0.6], np.float32))
    with pytest.raises(OpsetError, match="opset 10 rounds up along the axes that shrink"):
        vjp(model, ["x"], ["y"])
    assert_same_function(
        old_model('y = Resize<mode="linear">(x, s)', 10, s=np.array([1, 1, 2, 0.6], np.float32))
    )


def test_hardmax_is_refused() -> None:
    with pytest.raises(OpsetError, match="another function of its Hardmax"):
        vjp(old_model("h = Hardmax(x) y = Mul(h, x)", 11), ["x"], ["y"])


def test_groups_of_channels_are_not_taken_for_channels() -> None:
    node = "n = GroupNormalization<num_groups = 1>(x, s, s) "
    s = np.ones(1, np.float32)
    assert_same_function(old_model(node + "y = MaxPool<kernel_shape = [2, 2]>(n)", 18, s=s))
    pooled = node + "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(n)"
    with pytest.raises(OpsetError, match="a scale for each group"):
        vjp(old_model(pooled, 18, s=s), ["x"], ["y"])


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("y = Softmax<axis=1>(x)", 11),
        ("y = LogSoftmax<axis=2>(x)", 12),
        ("y = MeanVarianceNormalization(x)", 9),
        ("y = LpPool<kernel_shape=[2, 2]>(x)", 8),
        ("y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1>(x)", 10),
        ("y = InstanceNormalization(x, s, s)", 6),
        ("y = PRelu(x, slope)", 7),
        ("y = ConvTranspose<strides=[2, 2], output_padding=[1, 1]>(x, w)", 8),
        ("y = LRN<size=3>(x)", 6),
        ("y = DepthToSpace<blocksize=1>(x)", 10),
    ],
)
def test_other_operators(node: str, opset: int) -> None:
    rng = np.random.default_rng(1)
    arrays = {"s": (2,), "slope": (2, 1, 1), "w": (2, 2, 3, 3)}
    used = {
        n: rng.standard_normal(shape).astype(np.float32) for n, shape in arrays.items() if f" {n}" in node
    }
    assert_same_function(old_model(node, opset, **used))
