import pytest


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """These nets are small: a pool of threads only waits, above all on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
