import os

import pytest

# TensorFlow reads these when it is imported. Its C++ side writes to standard error, which no filter of
# Python sees; and twelve callers with a pool of threads each only wait for one another.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

_REASON = "a long sweep: run it with --full"


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the long sweeps too (tests marked full)")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a long sweep, run with --full only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("full") is not None:
                item.add_marker(pytest.mark.skip(reason=_REASON))
