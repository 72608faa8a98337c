import pytest


@pytest.fixture(scope="session", autouse=True)
def _jax():
    pytest.importorskip("jax")
