from __future__ import annotations

import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnxruntime as ort
import pytest
from mollikit_onnx import OnnxOracle

from tests.onnx import models

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)


def one_thread():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def test_the_callers_model_and_options_are_left_alone():
    model, options = models.cnn(), one_thread()
    before = model.SerializeToString()
    oracle = OnnxOracle(model, target=1, session_options=options, values=True)
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype(np.float32)
    first = oracle.value_and_gradient(x)
    assert model.SerializeToString() == before
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level == ort.SessionOptions().graph_optimization_level
    del model.graph.node[:]
    again = oracle.value_and_gradient(x)
    assert np.array_equal(first[1], again[1])


def test_sessions_are_built_once_by_many_threads():
    oracle = OnnxOracle(models.mlp(), target="top")
    with ThreadPoolExecutor(12) as pool:
        anchored = list(pool.map(oracle.anchored, np.repeat(POINTS, 6, axis=0)))
        sessions = set(pool.map(lambda one: id(one._sessions.gradient), anchored))
    assert len(sessions) == 1


def test_pickled_oracles_share_their_sessions():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread, values=True)
    content = pickle.dumps(oracle)
    first, second = pickle.loads(content), pickle.loads(content)
    assert first._sessions is second._sessions
    other = pickle.loads(pickle.dumps(OnnxOracle(models.mlp(classes=6), target=3)))
    assert other._sessions is not first._sessions
    expected = oracle.value_and_gradient(POINTS)
    for got, want in zip(first.value_and_gradient(POINTS), expected, strict=True):
        assert np.array_equal(got, want)


def test_a_forked_process_builds_sessions_of_its_own(monkeypatch):
    content = pickle.dumps(OnnxOracle(models.mlp(), target=3))
    inherited = pickle.loads(content)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    own = pickle.loads(content)
    assert own._sessions is not inherited._sessions
    assert own._sessions is pickle.loads(content)._sessions


def test_another_process_gives_the_same_bits():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread)
    _, expected = oracle.value_and_gradient(POINTS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(oracle.value_and_gradient, [POINTS, POINTS]))
    for _, gradients in results:
        assert np.array_equal(gradients, expected)


def test_session_options_that_cannot_travel_say_so():
    oracle = OnnxOracle(models.mlp(), target=3, session_options=one_thread())
    with pytest.raises(TypeError, match="module-level function"):
        pickle.dumps(oracle)
