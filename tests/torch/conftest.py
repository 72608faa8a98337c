import pytest


@pytest.fixture(scope="package", autouse=True)
def _one_thread_for_each_call():
    """Twelve callers with a pool of threads each only wait for one another."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
