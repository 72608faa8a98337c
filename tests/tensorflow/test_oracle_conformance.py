from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from mollikit_tensorflow import TensorFlowOracle, open_saved_model  # noqa: E402

from mollikit.testing import OracleConformance  # noqa: E402
from tests.tensorflow import nets  # noqa: E402


class TestMlp(OracleConformance):
    dtype = np.float32

    def oracle(self):
        return TensorFlowOracle(nets.mlp())

    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(self.dtype)

    def held(self, m, rng):
        return {"target": rng.integers(0, 5, m)}


class TestMlpInFloat64(TestMlp):
    dtype = np.float64

    def oracle(self):
        return TensorFlowOracle(nets.mlp("float64"))


class TestMlpOfAFunctionTarget(TestMlp):
    def oracle(self):
        return TensorFlowOracle(nets.mlp(), target=lambda logits: tf.nn.log_softmax(logits)[:, 2])

    def held(self, m, rng):
        return {}


class TestReweighted(TestMlp):
    def oracle(self):
        oracle = TensorFlowOracle(nets.mlp())
        return oracle.reweighted({name: 1.1 * values for name, values in oracle.weights.items()})


class TestAFunction(TestMlp):
    """Nothing is known of its dtypes: it takes what the points have."""

    dtype = np.float64

    def oracle(self):
        return TensorFlowOracle(lambda x: tf.reduce_sum(x**3, axis=1) + x[:, 0] * x[:, 1])

    def held(self, m, rng):
        return {}


class TestASubclassWithBatchNorm(OracleConformance):
    def oracle(self):
        return TensorFlowOracle(nets.normalised())

    def points(self, m, rng):
        return rng.standard_normal((m, 8, 8, 2)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class TestTwoInputs(OracleConformance):
    def oracle(self):
        return TensorFlowOracle(nets.two_inputs())

    def points(self, m, rng):
        return {
            "a": rng.standard_normal((m, 3)).astype(np.float32),
            "b": rng.standard_normal((m, 4)).astype(np.float32) + 2,
        }

    def held(self, m, rng):
        return {"mask": rng.integers(0, 2, (m, 4)), "target": rng.integers(0, 4, m)}


class TestASignature(TestTwoInputs):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory):
        cls.folder = tmp_path_factory.mktemp("saved")
        cls.save(str(cls.folder))

    @classmethod
    def save(cls, folder):
        nets.two_inputs().export(folder, verbose=False)

    def oracle(self):
        return open_saved_model(self.folder)


class TestASignatureOfASingleRow(TestASignature):
    """A batch axis fixed at 1."""

    @classmethod
    def save(cls, folder):
        model = nets.two_inputs()
        signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs]
        archive = tf.Module()
        archive.model = model
        archive.serve = tf.function(
            lambda a, b, mask: model({"a": a, "b": b, "mask": mask}, training=False),
            input_signature=signature,
        )
        tf.saved_model.save(archive, folder, signatures=archive.serve)
