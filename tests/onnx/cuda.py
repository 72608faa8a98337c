"""ONNX Runtime's CUDA provider, where there is one at work."""

from functools import cache

import pytest
from mollikit_onnx.runtime.providers import ProviderError, check_providers

# Without it, convolutions and products of matrices keep 10 bits of float32's 23 on recent cards.
EXACT = [("CUDAExecutionProvider", {"use_tf32": "0"})]


@cache
def at_work() -> bool:
    try:
        check_providers(EXACT)
    except ProviderError:
        return False
    return True


needs_cuda = pytest.mark.skipif(not at_work(), reason="needs onnxruntime-gpu and a CUDA device")
