"""The examples in the adapters' docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = {
    "mollikit_torch.oracle": "torch",
    "mollikit_torch.exported": "torch",
    "mollikit_torch.captum": "captum",
    "mollikit_tensorflow.oracle": "tensorflow",
    "mollikit_tensorflow.files": "tensorflow",
    "mollikit_jax.oracle": "jax",
}


# Keras's own way of saving a variable, under NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning:keras")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    pytest.importorskip(MODULES[name])
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0
