"""Quantus's own metrics score mollikit's explanations, where Quantus (which needs OpenCV) is installed."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
quantus = pytest.importorskip("quantus", reason="Quantus is not installed")

from mollikit_torch import TorchOracle  # noqa: E402

import mollikit as mk  # noqa: E402
from tests.torch import nets  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Quantus's own
EXPLAIN = mk.QuantusExplainer(TorchOracle, mk.Pathwise(mk.Gaussian(0.1)), mk.Evaluations(32))
X = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype(np.float32)
Y = np.array([0, 1, 2])


@pytest.mark.parametrize(
    "metric",
    [
        lambda: quantus.Sparseness(),
        lambda: quantus.MaxSensitivity(nr_samples=2),
        lambda: quantus.FaithfulnessCorrelation(
            nr_runs=4, subset_size=8, perturb_baseline="black", return_aggregate=False
        ),
        lambda: quantus.MPRT(),
    ],
    ids=["sparseness", "sensitivity", "faithfulness", "randomisation"],
)
def test_a_metric_scores_the_explanations(metric):
    scores = metric()(
        model=nets.normalised(), x_batch=X, y_batch=Y, a_batch=None, explain_func=EXPLAIN, device="cpu"
    )
    for row in scores.values() if isinstance(scores, dict) else [scores]:
        assert np.shape(row) == (3,)
        assert np.isfinite(row).all()


def test_a_metric_scores_what_it_is_given_beforehand_alike():
    given = EXPLAIN(nets.normalised(), inputs=X, targets=Y)
    by_itself, beforehand = (
        quantus.Sparseness()(model=nets.normalised(), x_batch=X, y_batch=Y, device="cpu", **how)
        for how in ({"a_batch": None, "explain_func": EXPLAIN}, {"a_batch": given})
    )
    np.testing.assert_array_equal(by_itself, beforehand)
