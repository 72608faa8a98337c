from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mollikit_torch import TorchOracle  # noqa: E402

from mollikit.testing import OracleConformance  # noqa: E402
from tests.torch import nets  # noqa: E402


class TestMlp(OracleConformance):
    dtype = np.float32

    def oracle(self):
        return TorchOracle(nets.mlp())

    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(self.dtype)

    def held(self, m, rng):
        return {"target": rng.integers(0, 5, m)}


class TestMlpInFloat64(TestMlp):
    dtype = np.float64

    def oracle(self):
        return TorchOracle(nets.mlp(torch.float64))


class TestMlpOfAFunctionTarget(TestMlp):
    def oracle(self):
        return TorchOracle(nets.mlp(), target=lambda logits: logits.log_softmax(1)[:, 2])

    def held(self, m, rng):
        return {}


class TestAFunction(TestMlp):
    """No module, so nothing is known of dtypes: it takes what the points have."""

    dtype = np.float64

    def oracle(self):
        return TorchOracle(lambda x: (x**3).sum(1) + x[:, 0] * x[:, 1])

    def held(self, m, rng):
        return {}


class TestCnnWithBatchNorm(OracleConformance):
    def oracle(self):
        return TorchOracle(nets.normalised())

    def points(self, m, rng):
        return rng.standard_normal((m, 2, 8, 8)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class TestCnnThatNeedsContiguousFeatures(TestCnnWithBatchNorm):
    def oracle(self):
        return TorchOracle(nets.viewing())


class TestTwoInputs(OracleConformance):
    def oracle(self):
        return TorchOracle(nets.TwoInputs().eval())

    def points(self, m, rng):
        return {
            "a": rng.standard_normal((m, 3)).astype(np.float32),
            "b": rng.standard_normal((m, 4)).astype(np.float32) + 2,
        }

    def held(self, m, rng):
        return {"mask": rng.integers(0, 2, (m, 4)), "target": rng.integers(0, 4, m)}


class TestOneOfTwoInputs(TestTwoInputs):
    """A float input that is held, not smoothed."""

    def points(self, m, rng):
        return super().points(m, rng)["a"]

    def held(self, m, rng):
        return {**super().held(m, rng), "b": rng.standard_normal((m, 4)).astype(np.float32) + 2}


class TestEmbeddings(OracleConformance):
    """Token ids are held; the points stand for the embeddings' output."""

    def oracle(self):
        return TorchOracle(nets.tokens(), layer="embeddings", output="logits")

    def points(self, m, rng):
        return rng.standard_normal((m, 7, 4)).astype(np.float32)

    def held(self, m, rng):
        return {
            "ids": rng.integers(0, 11, (m, 7)),
            "mask": rng.integers(0, 2, (m, 7)).astype(bool),
            "target": rng.integers(0, 3, m),
        }
