from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mollikit

MODULES = [
    module.name
    for module in pkgutil.walk_packages(mollikit.__path__, "mollikit.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["mollikit", *MODULES])
def test_the_examples_in_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("name", ["Pathwise", "Estimate", "Gaussian", "Recentred", "Pool", "ChannelSum"])
def test_the_main_nouns_have_an_example(name):
    assert ">>>" in getattr(mollikit, name).__doc__
