from __future__ import annotations

import numpy as np
from mollikit_onnx import OnnxOracle

from mollikit.testing import OracleConformance
from tests.onnx import models


class TestMlp(OracleConformance):
    def oracle(self):
        return OnnxOracle(models.mlp(), values=True)

    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 5, m)}


class TestMlpWithAFixedTarget(TestMlp):
    def oracle(self):
        return OnnxOracle(models.mlp(), target=3, values=True)

    def held(self, m, rng):
        return {}


class TestMlpOfASingleRow(TestMlp):
    """A batch axis fixed at 1."""

    def oracle(self):
        return OnnxOracle(models.mlp(batch=1), values=True)


class TestMlpWithoutValues(TestMlp):
    """Values come from the forward session."""

    def oracle(self):
        return OnnxOracle(models.mlp())

    def value(self, oracle, points, held):
        return oracle.value(points, **held)


class TestCnn(OracleConformance):
    def oracle(self):
        return OnnxOracle(models.cnn(), values=True)

    def points(self, m, rng):
        return rng.standard_normal((m, 2, 8, 8)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class TestTwoInputs(OracleConformance):
    def oracle(self):
        return OnnxOracle(models.two_inputs(), values=True)

    def points(self, m, rng):
        return {
            "a": rng.standard_normal((m, 3)).astype(np.float32),
            "b": rng.standard_normal((m, 4)).astype(np.float32) + 2,
        }

    def held(self, m, rng):
        return {"mask": rng.integers(0, 2, (m, 4)), "target": rng.integers(0, 4, m)}


class TestOneOfTwoInputs(TestTwoInputs):
    """A float input that is held, not smoothed."""

    def oracle(self):
        return OnnxOracle(models.two_inputs(), wrt=["a"], values=True)

    def points(self, m, rng):
        return super().points(m, rng)["a"]

    def held(self, m, rng):
        return {**super().held(m, rng), "b": rng.standard_normal((m, 4)).astype(np.float32) + 2}
