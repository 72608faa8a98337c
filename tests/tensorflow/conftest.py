import os

import pytest

# Before TensorFlow is imported: its C++ side writes to standard error, which no filter of Python sees.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_each_call():
    """Twelve callers with a pool of threads each only wait for one another."""
    tf = pytest.importorskip("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
