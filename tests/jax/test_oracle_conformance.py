from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax import numpy as jnp  # noqa: E402
from mollikit_jax import JaxOracle  # noqa: E402

from mollikit.testing import OracleConformance  # noqa: E402
from tests.jax import nets  # noqa: E402


@cache
def _made(case):
    return case.make()


class Cases(OracleConformance):
    """One oracle for all tests of a case: each new one would be compiled anew."""

    def oracle(self):
        return _made(type(self))


class TestMlp(Cases):
    dtype = np.float32

    @classmethod
    def make(cls):
        return JaxOracle(nets.mlp, nets.mlp_params())

    def points(self, m, rng):
        return rng.standard_normal((m, 6)).astype(self.dtype)

    def held(self, m, rng):
        return {"target": rng.integers(0, 5, m)}


class TestMlpRowwise(TestMlp):
    @classmethod
    def make(cls):
        return JaxOracle(nets.mlp, nets.mlp_params(), rowwise=True)


class TestMlpInFloat64(TestMlp):
    dtype = np.float64

    @classmethod
    def make(cls):
        with jax.enable_x64(True):
            params = {name: jnp.asarray(w, np.float64) for name, w in nets.mlp_params().items()}
        return JaxOracle(nets.mlp, params)


class TestMlpOfAFunctionTarget(TestMlp):
    @classmethod
    def make(cls):
        return JaxOracle(nets.mlp, nets.mlp_params(), target=lambda y: jax.nn.log_softmax(y)[:, 2])

    def held(self, m, rng):
        return {}


class TestReweighted(TestMlp):
    @classmethod
    def make(cls):
        oracle = JaxOracle(nets.mlp, nets.mlp_params())
        return oracle.reweighted({name: 1.1 * values for name, values in oracle.weights.items()})


class TestAFunction(TestMlp):
    @classmethod
    def make(cls):
        return JaxOracle(lambda x: (x**3).sum(1) + x[:, 0] * x[:, 1])

    def held(self, m, rng):
        return {}


class TestAFunctionInFloat64(TestAFunction):
    dtype = np.float64

    @classmethod
    def make(cls):
        return JaxOracle(lambda x: (x**3).sum() + x[0] * x[1], dtype=np.float64, rowwise=True)


class TestLinen(TestMlp):
    @classmethod
    def make(cls):
        module, variables = nets.linen_net()
        return JaxOracle(module.apply, variables)

    def held(self, m, rng):
        return {"target": rng.integers(0, 3, m)}


class TestNnx(TestLinen):
    @classmethod
    def make(cls):
        return JaxOracle(nets.nnx_net())


class TestEquinox(TestLinen):
    @classmethod
    def make(cls):
        return JaxOracle(nets.equinox_net(), rowwise=True)


class TestCnn(Cases):
    @classmethod
    def make(cls):
        return JaxOracle(partial(nets.cnn, activation=jax.nn.softplus), nets.cnn_params())

    def points(self, m, rng):
        return rng.standard_normal((m, 2, 8, 8)).astype(np.float32)

    def held(self, m, rng):
        return {"target": rng.integers(0, 4, m)}


class TestTwoInputs(Cases):
    @classmethod
    def make(cls):
        return JaxOracle(nets.two_inputs, nets.two_inputs_params())

    def points(self, m, rng):
        return {
            "a": rng.standard_normal((m, 3)).astype(np.float32),
            "b": rng.standard_normal((m, 4)).astype(np.float32) + 2,
        }

    def held(self, m, rng):
        return {"mask": rng.integers(0, 2, (m, 4)), "target": rng.integers(0, 4, m)}
