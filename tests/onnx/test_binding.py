"""OrtValues in, OrtValues out, on one device; those on CUDA where its provider is at work."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
from mollikit_onnx import OnnxOracle
from mollikit_onnx.runtime.binding import check_device
from onnxruntime import OrtValue

from mollikit.testing import assert_rows_close
from tests.onnx import models
from tests.onnx.cuda import needs_cuda

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
TARGETS = np.array([0, 4, 2, 2])
TWO = {"a": np.ones((4, 3), np.float32), "b": np.full((4, 4), 2, np.float32)}
MASK = np.array([[1, 0, 1, 1]] * 4, np.int64)


devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])


def oracle_on(device, model, **options):
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    return OnnxOracle(model, providers=providers, **options)


def on(device, array):
    return OrtValue.ortvalue_from_numpy(array, device, 0)


def assert_same(device, bound, array, what):
    assert isinstance(bound, OrtValue)
    assert bound.device_name() == device
    assert bound.data_type() == {"float32": "tensor(float)", "float64": "tensor(double)"}[array.dtype.name]
    assert_rows_close(bound.numpy(), array, array.dtype, what=what)


@devices
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_stay_on_the_device(device, dtype):
    oracle = oracle_on(device, models.mlp(dtype=dtype), values=True, target=1)
    points = POINTS.astype(dtype)
    for held in ({}, {"target": TARGETS}, {"target": on(device, TARGETS)}):
        values, gradients = oracle.value_and_gradient(on(device, points), **held)
        arrays = dict.fromkeys(held, TARGETS)
        expected_values, expected = oracle.value_and_gradient(points, **arrays)
        assert_same(device, values, expected_values, "values")
        assert_same(device, gradients, expected, "gradients")
        assert_same(
            device, oracle.value(on(device, points), **held), oracle.value(points, **arrays), "values"
        )
    assert_same(device, oracle.predict(on(device, points)), oracle.predict(points), "outputs")


@devices
def test_a_convolution(device):
    points = np.random.default_rng(3).random((3, 2, 8, 8), np.float32)
    oracle = oracle_on(device, models.cnn(), target=2)
    values, gradients = oracle.value_and_gradient(on(device, points))
    assert values is None
    assert_same(device, gradients, oracle.value_and_gradient(points)[1], "gradients")


@devices
def test_several_inputs_and_what_is_held(device):
    oracle = oracle_on(device, models.two_inputs(), target=0, values=True)
    expected_values, expected = oracle.value_and_gradient(TWO, mask=MASK)
    points = {name: on(device, array) for name, array in TWO.items()}
    for mask in (MASK, on(device, MASK)):
        values, gradients = oracle.value_and_gradient(points, mask=mask)
        assert_same(device, values, expected_values, "values")
        assert list(gradients) == ["a", "b"]
        for name in gradients:
            assert_same(device, gradients[name], expected[name], name)


@devices
def test_other_weights(device):
    oracle = oracle_on(device, models.mlp(), target=1, values=True)
    other = oracle.reweighted({name: 2 * array for name, array in oracle.weights.items()})
    values, gradients = other.value_and_gradient(on(device, POINTS))
    expected_values, expected = other.value_and_gradient(POINTS)
    assert_same(device, values, expected_values, "values")
    assert_same(device, gradients, expected, "gradients")
    assert_same(device, other.value(on(device, POINTS)), other.value(POINTS), "values")


@devices
def test_from_many_threads(device):
    oracle = oracle_on(device, models.mlp(), target=1)
    batches = np.random.default_rng(1).standard_normal((40, 4, 6)).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: oracle.value_and_gradient(on(device, batch))[1], batches))
    for gradients, batch in zip(found, batches, strict=True):
        assert_same(device, gradients, oracle.value_and_gradient(batch)[1], "gradients")


@devices
def test_results_outlive_the_points_and_the_oracle(device):
    oracle = oracle_on(device, models.mlp(), target=1, values=True)
    expected_values, expected = oracle.value_and_gradient(POINTS)
    values, gradients = oracle.value_and_gradient(on(device, POINTS.copy()))
    for _ in range(3):  # memory that was given back would be written again
        oracle.value_and_gradient(on(device, POINTS + 1))
    del oracle
    gc.collect()
    assert_same(device, gradients, expected, "gradients")
    del gradients
    assert_same(device, values, expected_values, "values")


def test_a_result_keeps_nothing_else():
    array = POINTS.copy()
    kept = weakref.ref(array)
    points = OrtValue.from_dlpack(array)
    del array
    assert kept() is not None
    results = OnnxOracle(models.mlp(), target=1, values=True).value_and_gradient(points)
    del points
    gc.collect()
    assert kept() is None
    assert all(isinstance(result, OrtValue) for result in results)


@devices
def test_tensors_of_pytorch(device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a PyTorch with CUDA")
    oracle = oracle_on(device, models.mlp(), target=1)
    tensor = torch.from_numpy(POINTS).to(device)
    points = OrtValue.from_dlpack(tensor)
    assert points.data_ptr() == tensor.data_ptr()
    _, bound = oracle.value_and_gradient(points)
    gradients = torch.from_dlpack(bound)
    assert gradients.device.type == device
    assert gradients.data_ptr() == bound.data_ptr()
    del points, tensor, bound
    oracle.value_and_gradient(OrtValue.from_dlpack(torch.zeros(4, 6, device=device)))
    assert_rows_close(gradients.cpu().numpy(), oracle.value_and_gradient(POINTS)[1], np.float32, what="rows")


def test_points_are_not_copied_nor_their_results_kept():
    """What is written into an array is seen by the OrtValue over it; results are of memory of their own."""
    array = POINTS.copy()
    points = on("cpu", array)
    oracle = OnnxOracle(models.mlp(), target=1)
    before = oracle.value_and_gradient(points)[1]
    array[:] = POINTS[::-1]
    after = oracle.value_and_gradient(points)[1]
    assert np.array_equal(after.numpy(), before.numpy()[::-1])
    assert not np.array_equal(after.numpy(), before.numpy())


@pytest.mark.parametrize(
    ("points", "held", "error", "message"),
    [
        (POINTS[:, :5], {}, ValueError, r"'x' takes a batch of shape \(m, 6\) and got \(4, 5\)"),
        (POINTS[0], {}, ValueError, r"and got \(6,\): add the batch axis"),
        (
            POINTS.astype(float),
            {},
            TypeError,
            r"'x' takes float32 and got an OrtValue of tensor\(double\): cast",
        ),
        (POINTS.astype(int), {}, TypeError, r"takes float32 and got an OrtValue of tensor\(int64\)"),
        (POINTS[:0], {}, ValueError, "OrtValues of no rows"),
        (POINTS, {"mask": on("cpu", MASK)}, ValueError, "no input 'mask' to hold"),
        (POINTS, {"target": on("cpu", TARGETS[:2])}, ValueError, r"the shape \(4,\) and got \(2,\)"),
        (POINTS, {"target": on("cpu", TARGETS + 3)}, ValueError, "target 7 is out of range"),
    ],
)
def test_bad_batches(points, held, error, message):
    oracle = OnnxOracle(models.mlp(), target=0)
    for call in (oracle.value_and_gradient, oracle.value):
        with pytest.raises(error, match=message):
            call(on("cpu", np.ascontiguousarray(points)), **held)


def test_points_are_all_arrays_or_all_ortvalues():
    oracle = OnnxOracle(models.two_inputs(), target=0)
    for points, mask in ((TWO, on("cpu", MASK)), ({**TWO, "b": on("cpu", TWO["b"])}, MASK)):
        with pytest.raises(
            TypeError, match=r"input 'a' is an array and '(mask|b)' an OrtValue: give all points"
        ):
            oracle.value_and_gradient(points, mask=mask)


def test_what_takes_arrays():
    row = OnnxOracle(models.mlp(batch=1), target=0)
    assert_same("cpu", row.value(on("cpu", POINTS[:1])), row.value(POINTS[:1]), "values")
    for call in (row.value_and_gradient, row.predict):
        with pytest.raises(
            ValueError, match=r"4 rows, and the model takes one at a time.*dynamic batch axis"
        ):
            call(on("cpu", POINTS))
    with pytest.raises(TypeError, match="several targets take arrays"):
        OnnxOracle(models.mlp(), target=0).values_and_gradients(on("cpu", POINTS), [0, 1])
    sparse = ort.SparseTensor.sparse_coo_from_numpy(
        np.array([4, 6], np.int64),
        np.ones(1, np.float32),
        np.zeros(1, np.int64),
        ort.OrtDevice.make("cpu", 0),
    )
    with pytest.raises(TypeError, match="takes a tensor and got an OrtValue of sparse"):
        OnnxOracle(models.mlp(), target=0).predict(OrtValue.ort_value_from_sparse_tensor(sparse))


def test_a_clean_input_on_a_device_resolves_the_target():
    anchored = OnnxOracle(models.mlp(), target="top").anchored(on("cpu", POINTS[0]))
    assert anchored.describe()["target"] == [OnnxOracle(models.mlp()).predict(POINTS[:1]).argmax()]


def test_open_sizes_of_an_output_are_checked():
    oracle = OnnxOracle(models.squares(("n", "d")), target=3)
    points = on("cpu", np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="target 3 is out of range: output 'y' has 3"):
        oracle.value(points)


def test_devices_of_other_providers():
    cuda = ("CUDAExecutionProvider", {"device_id": "1"})
    check_device(("cuda", 1), [cuda, "CPUExecutionProvider"])
    check_device(("cuda", 0), ["TensorrtExecutionProvider", cuda])
    check_device(("cpu", 0), [cuda])
    for device, providers in (
        (("cuda", 0), ["CPUExecutionProvider"]),
        (("cuda", 0), [cuda]),
        (("dml", 0), []),
    ):
        with pytest.raises(
            ValueError, match=rf"the points lie on \('{device[0]}', {device[1]}\).*providers="
        ):
            check_device(device, providers)


@needs_cuda
def test_a_gpu_and_an_oracle_on_the_cpu():
    with pytest.raises(ValueError, match=r"the cpu alone.*CUDAExecutionProvider"):
        OnnxOracle(models.mlp(), target=0).predict(on("cuda", POINTS))
    oracle = oracle_on("cuda", models.two_inputs(), target=0)
    with pytest.raises(ValueError, match="lie on one device"):
        oracle.predict({"a": on("cuda", TWO["a"]), "b": on("cpu", TWO["b"])}, mask=MASK)
    # Points on the CPU are answered there.
    oracle = oracle_on("cuda", models.mlp(), target=0)
    assert_same("cpu", oracle.predict(on("cpu", POINTS)), oracle.predict(POINTS), "outputs")
