from mollikit_onnx import OnnxOracle

from tests.onnx import models
from tests.onnx import test_oracle_conformance as on_the_host
from tests.onnx.cuda import EXACT, needs_cuda

pytestmark = needs_cuda


class TestMlp(on_the_host.TestMlp):
    def oracle(self):
        return OnnxOracle(models.mlp(), values=True, providers=EXACT)


class TestCnn(on_the_host.TestCnn):
    def oracle(self):
        return OnnxOracle(models.cnn(), values=True, providers=EXACT)


class TestTwoInputs(on_the_host.TestTwoInputs):
    def oracle(self):
        return OnnxOracle(models.two_inputs(), values=True, providers=EXACT)
