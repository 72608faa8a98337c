from __future__ import annotations

import onnxruntime as ort
import pytest
from mollikit_onnx.loading import ModelFileError
from mollikit_onnx.runtime.providers import ProviderError, check_providers, create_session

from tests.onnx import models


def test_the_cpu_is_there():
    assert check_providers(["CPUExecutionProvider"]) == ("CPUExecutionProvider",)
    session = create_session(models.mlp().SerializeToString(), ["CPUExecutionProvider"], None)
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_options_of_a_provider():
    asked = [("CPUExecutionProvider", {})]
    assert check_providers(asked) == tuple(asked)


def test_unknown_provider():
    with pytest.raises(ProviderError, match=r"no execution provider 'CudaProvider'.*CPUExecutionProvider"):
        check_providers(["CudaProvider"])


def test_provider_of_another_build():
    other = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    with pytest.raises(ProviderError, match=f"was built without {other}.*Install"):
        check_providers([other])


def test_no_provider():
    with pytest.raises(ProviderError, match="No execution provider"):
        check_providers([])


def test_a_bare_name():
    with pytest.raises(ProviderError, match=r"write \('CPUExecutionProvider',\)"):
        check_providers("CPUExecutionProvider")


def cuda_is_listed_but_absent() -> bool:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    session = ort.InferenceSession(models.mlp().SerializeToString(), providers=["CUDAExecutionProvider"])
    return "CUDAExecutionProvider" not in session.get_providers()


@pytest.mark.skipif(not cuda_is_listed_but_absent(), reason="needs onnxruntime-gpu on a machine without CUDA")
@pytest.mark.parametrize(
    "asked", [["CUDAExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]]
)
def test_a_silent_fallback_to_the_cpu_is_an_error(asked):
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider did not start.*leave the provider out"):
        check_providers(asked)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider did not start"):
        create_session(models.mlp().SerializeToString(), asked, None)


def test_custom_operator():
    with pytest.raises(ModelFileError, match=r"acme:Frobnicate.*register_custom_ops_library"):
        create_session(models.custom_operator().SerializeToString(), ["CPUExecutionProvider"], None)


def test_opset_of_the_future():
    model = models.squares()
    model.opset_import[0].version = 999
    with pytest.raises(ModelFileError, match="newer onnxruntime or an export to an older opset"):
        create_session(model.SerializeToString(), ["CPUExecutionProvider"], None)


def test_session_options_are_used():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = create_session(models.mlp().SerializeToString(), ["CPUExecutionProvider"], options)
    assert session.get_session_options().intra_op_num_threads == 1
