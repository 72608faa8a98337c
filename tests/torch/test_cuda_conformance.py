import pytest

torch = pytest.importorskip("torch")

from mollikit_torch import TorchOracle  # noqa: E402

from tests.torch import nets  # noqa: E402
from tests.torch import test_oracle_conformance as on_the_host  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _without_tf32(monkeypatch):
    """Convolutions keep 10 bits of float32's 23 otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


class TestMlp(on_the_host.TestMlp):
    def oracle(self):
        return TorchOracle(nets.mlp(), device="cuda")


class TestMlpInFloat64(on_the_host.TestMlpInFloat64):
    def oracle(self):
        return TorchOracle(nets.mlp(torch.float64), device="cuda")


class TestCnnWithBatchNorm(on_the_host.TestCnnWithBatchNorm):
    def oracle(self):
        return TorchOracle(nets.normalised(), device="cuda")


class TestTwoInputs(on_the_host.TestTwoInputs):
    def oracle(self):
        return TorchOracle(nets.TwoInputs().eval(), device="cuda")
