import pytest

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
