"""What an estimate holds does not grow with its points, in any framework."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import mollikit as mk
from tests.frameworks.carried import FRAMEWORKS, NEEDS, SHAPES


@pytest.mark.parametrize("mode", ["inputs", "both"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_arrays_do_not_grow_with_the_points(framework, mode):
    """Peak of what Python and NumPy allocate; rows kept would be 448 gradients, and as many points, more."""
    pytest.importorskip(NEEDS[framework])
    oracle, x = FRAMEWORKS[framework]("cnn"), np.ones(SHAPES["cnn"], np.float32)
    weights = {"weights": mk.Gaussian(mk.OfMagnitude(0.2))} if mode == "both" else {}
    smooth = mk.Pathwise(mk.Gaussian(0.3), **weights, block=32)

    def peak(n):
        tracemalloc.start()
        try:
            smooth.estimate(oracle, x, budget=mk.Evaluations(n), rng=0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64)  # what is made once: traces, replicas, sessions
    assert peak(512) - peak(64) < 0.5 * 448 * x.nbytes
