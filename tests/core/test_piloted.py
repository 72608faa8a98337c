"""Estimators that learn their scheme from a pilot: unbiased, honest about errors and costs, deterministic."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.estimators.shares import Shares
from tests.core.closed_forms import Cubic, Linear, PlaneWaves, Quadratic, Recording
from tests.core.test_coverage import assert_between
from tests.core.test_determinism import bits

DIMENSION = 6
rng = np.random.default_rng(3)
X = rng.standard_normal(DIMENSION)
WIDTHS = rng.uniform(0.3, 1.0, DIMENSION)
WAVES = PlaneWaves(rng.normal(0, 0.6, (5, DIMENSION)))
ESTIMATORS = {"adaptive": mk.Adaptive, "subspace": mk.Subspace}

every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


@every_estimator
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Logistic, mk.Uniform])
def test_the_mean_over_seeds_is_the_closed_form(make, kernel):
    # Over seeds, so that what the pilot's choice does to the mean would show.
    smooth, truth = make(kernel(WIDTHS)), WAVES.smoothed_gradient(kernel(1.0), X, WIDTHS)
    runs = [smooth.estimate(WAVES, X, budget=mk.Evaluations(200), rng=seed) for seed in range(150)]
    values = np.array([run.gradient for run in runs])
    z = (values.mean(0) - truth) / stats.sem(values)
    assert np.abs(z).max() < stats.t.isf(1e-4 / 12, 149)
    off = (1.02 * values.mean(0) - truth) / stats.sem(values)
    assert np.abs(off).max() > stats.t.isf(1e-4 / 12, 149)


@every_estimator
@pytest.mark.parametrize(("seeds", "sure"), [(200, 4.0), pytest.param(4000, 1.0, marks=pytest.mark.full)])
def test_coverage_at_fixed_n(make, seeds, sure):
    smooth, truth = make(mk.Gaussian(WIDTHS)), WAVES.smoothed_gradient(mk.Gaussian(1.0), X, WIDTHS)
    runs = [smooth.estimate(WAVES, X, budget=mk.Evaluations(512), rng=seed) for seed in range(seeds)]
    assert_between(runs, truth, 0.94, 0.96, sure)


@every_estimator
def test_every_evaluation_is_counted_and_none_exceeds_the_budget(make):
    for n in (128, 200, 1000):
        oracle = Recording(WAVES)
        estimate = make(mk.Gaussian(WIDTHS)).estimate(oracle, X, budget=mk.Evaluations(n), rng=0)
        rows = sum(int((points != X).any(1).sum()) for points, _ in oracle.batches)
        assert estimate.n_evaluations == rows <= n
        assert estimate.n_evaluations == sum(stratum.n_evaluations for stratum in estimate.strata)
        assert estimate.n_groups == sum(stratum.n_groups for stratum in estimate.strata)
        assert estimate.provenance["n_evaluations"] == rows
        assert estimate.stopped == f"Evaluations(n={n})"
        assert repr(estimate).startswith(f"Stratified(({DIMENSION},), error ")


@every_estimator
def test_the_strata_are_weighed_by_their_evaluations_alone(make):
    estimate = make(mk.Gaussian(WIDTHS)).estimate(WAVES, X, budget=mk.Evaluations(300), rng=0)
    pilot, scheme = estimate.strata
    share = pilot.n_evaluations / (pilot.n_evaluations + 2 * scheme.n_evaluations)
    assert estimate.weights == (pytest.approx(share), pytest.approx(1 - share))
    np.testing.assert_allclose(estimate.gradient, share * pilot.gradient + (1 - share) * scheme.gradient)
    np.testing.assert_allclose(
        estimate.standard_error**2,
        (share * pilot.standard_error) ** 2 + ((1 - share) * scheme.standard_error) ** 2,
    )
    assert scheme.degrees_of_freedom <= estimate.degrees_of_freedom <= estimate.n_groups - 2
    value = share * pilot.output.value + (1 - share) * scheme.output.value
    np.testing.assert_allclose(estimate.output.value, value)


@every_estimator
def test_the_pilots_points_are_not_the_schemes(make):
    oracle = Recording(WAVES)
    make(mk.Gaussian(WIDTHS)).estimate(oracle, X, budget=mk.Evaluations(256), rng=0)
    points = np.concatenate([points for points, _ in oracle.batches])
    points = points[(points != X).any(1)]
    assert len(np.unique(points, axis=0)) == len(points)


@every_estimator
def test_bits_are_the_same_for_every_executor_and_go_on(make, tmp_path):
    views = {"sum": lambda gradients: gradients.sum(1)}
    smooth = make(mk.Gaussian(WIDTHS), block=64)

    def run(n=600, **options):
        return smooth.estimate(WAVES, X, budget=mk.Evaluations(n), rng=(4, 2), views=views, **options)

    expected = run()
    assert bits(run()) == bits(expected)
    with ThreadPoolExecutor(3) as executor:
        assert bits(run(executor=executor)) == bits(expected)
    expected.save(tmp_path / "estimate.npz")
    loaded = mk.Estimate.load(tmp_path / "estimate.npz")
    for copy in (loaded, pickle.loads(pickle.dumps(expected))):
        assert bits(copy) == bits(expected)
        assert repr(copy) == repr(expected)
        assert (copy.weights, copy.n_groups) == (expected.weights, expected.n_groups)
    json.dumps(expected.provenance)
    longer = run(1400, resume=loaded)
    assert longer.n_evaluations > expected.n_evaluations
    assert longer.provenance["pilot"]["chosen"] == expected.provenance["pilot"]["chosen"]
    plain = mk.Pathwise(mk.Gaussian(WIDTHS)).estimate(WAVES, X, budget=mk.Evaluations(64), rng=0)
    with pytest.raises(ValueError, match="resume= holds no estimate of"):
        run(resume=plain)


@every_estimator
def test_a_budget_that_leaves_nothing_is_refused_before_the_model_is_called(make):
    oracle = Recording(WAVES)
    with pytest.raises(ValueError, match="leaves too little after a pilot of"):
        make(mk.Gaussian(WIDTHS), pilot=64).estimate(oracle, X, budget=mk.Evaluations(127))
    with pytest.raises(ValueError, match="there is no view 'no'"):
        make(mk.Gaussian(WIDTHS)).estimate(oracle, X, budget=mk.RelativeError(0.1, view="no"))
    with pytest.raises(TypeError, match="is not a budget"):
        make(mk.Gaussian(WIDTHS)).estimate(oracle, X, budget=64)
    assert oracle.batches == []
    with pytest.raises(ValueError, match="fewer than four groups"):
        make(mk.Gaussian(WIDTHS), pilot=7)


@every_estimator
def test_errors_and_clocks_stop_it_too(make):
    smooth = make(mk.Gaussian(WIDTHS), block=128)
    estimate = smooth.estimate(WAVES, X, budget=mk.RelativeError(0.05), rng=0)
    assert estimate.strata[1].relative_error <= 0.05
    assert estimate.relative_error < 0.06
    by_clock = smooth.estimate(WAVES, X, budget=mk.Seconds(0.3), rng=0)
    assert by_clock.partial
    assert by_clock.stopped == "Seconds(s=0.3)"
    either = smooth.estimate(WAVES, X, budget=mk.Seconds(60) | mk.Evaluations(300), rng=0)
    assert either.stopped == "Evaluations(n=300)"


@every_estimator
def test_an_interruption_loses_nothing(make):
    class Interrupting:
        calls = 0

        def value_and_gradient(self, points):
            Interrupting.calls += 1
            if Interrupting.calls > 6:
                raise KeyboardInterrupt
            return WAVES.value_and_gradient(points)

    smooth = make(mk.Gaussian(WIDTHS), block=128)
    with pytest.raises(mk.Interrupted) as raised:
        smooth.estimate(Interrupting(), X, budget=mk.Evaluations(10_000), rng=0)
    assert raised.value.partial.n_evaluations > 32


@every_estimator
def test_inputs_by_name_and_coordinates_held_fixed(make):
    widths = np.array([0.5, 0.0, 0.4])

    class Split:
        def value_and_gradient(self, points):
            together = np.concatenate([points["a"], points["b"]], axis=1)
            value, gradient = WAVES.value_and_gradient(together)
            return value, {"a": gradient[:, :3], "b": gradient[:, 3:]}

    smooth = make({"a": mk.Gaussian(widths), "b": mk.Gaussian(0.3)})
    estimate = smooth.estimate(Split(), {"a": X[:3], "b": X[3:]}, budget=mk.Evaluations(4096), rng=0)
    truth = WAVES.smoothed_gradient(mk.Gaussian(1.0), X, np.concatenate([widths, np.full(3, 0.3)]))
    z = np.concatenate(
        [
            (estimate.gradient[k] - truth[part]) / estimate.standard_error[k]
            for k, part in (("a", slice(0, 3)), ("b", slice(3, 6)))
        ]
    )
    assert np.abs(z).max() < stats.t.isf(1e-4 / 12, estimate.degrees_of_freedom)


def test_the_shares_of_known_functions():
    normals = np.random.default_rng(0).standard_normal((400, 4, 5))
    normals = (normals - normals.mean(1, keepdims=True)) * np.sqrt(4 / 3)
    t = np.concatenate([normals, -normals], axis=1)
    quadratic, cubic = (t**2 - 1) / np.sqrt(2), (t**3 - 3 * t) / np.sqrt(6)  # of unit variance, orthogonal
    for weights in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.5, 0.4]):
        powers = np.square(weights) / np.square(weights).sum()
        shares = Shares.of(weights[0] * t + weights[1] * quadratic + weights[2] * cubic)
        assert abs(shares.linear - powers[0]) <= 4 * shares.linear_error + 1e-12
        assert abs(shares.odd - powers[0] - powers[2]) <= 4 * shares.odd_error + 1e-12
        assert shares.linear_error < 0.05


@pytest.mark.parametrize("sampler", [mk.Independent(), mk.Antithetic(), mk.Recentred(8)], ids=repr)
@pytest.mark.parametrize("point", [0.0, 0.4, 2.0])
def test_gains_that_are_foretold_come(sampler, point):
    # 3 (x + t)^2 has the linear part 6 x t and the quadratic one 3 (t^2 - 1): L = 2 x^2 / (2 x^2 + 1).
    dimension, x = 200, np.full(200, point)
    smooth = mk.Adaptive(mk.Gaussian(1.0), pilot=256)
    pilot = smooth.estimate(Cubic(), x, budget=mk.Evaluations(1024), rng=0).provenance["pilot"]
    linear, error = pilot["linear"]
    assert abs(linear - 2 * point**2 / (2 * point**2 + 1)) < 4 * error + 1e-9
    run = mk.Pathwise(mk.Gaussian(1.0), sampler).estimate(Cubic(), x, budget=mk.Evaluations(4096), rng=1)
    variance = dimension * (36 * point**2 + 18)
    came = variance / (np.square(run.standard_error).sum() * run.n_evaluations)
    assert pilot["foretold"][repr(sampler)] == pytest.approx(came, rel=0.15)


def test_the_scheme_follows_from_what_the_pilot_sees():
    def chosen(oracle, x, kernel=None, n=1000):
        smooth = mk.Adaptive(kernel or mk.Gaussian(0.5))
        return smooth.estimate(oracle, x, budget=mk.Evaluations(n), rng=0).provenance["pilot"]["chosen"]

    matrix = np.random.default_rng(0).standard_normal((300, 300))
    assert chosen(Quadratic(matrix + matrix.T), np.ones(300)) in ("Recentred(points=8)", "Antithetic()")
    assert chosen(Cubic(), np.zeros(300)) == "Independent()"  # purely quadratic
    assert chosen(Cubic(), np.full(300, 2.0)) == "Recentred(points=8)"
    assert chosen(WAVES, X).startswith("RotatedSobol(<5 directions")  # there are five waves
    assert chosen(WAVES, X, n=150) == "Recentred(points=8)"  # too few for eight nets


def test_a_gradient_that_does_not_vary_needs_no_net():
    estimate = mk.Subspace(mk.Gaussian(0.5)).estimate(
        Linear(np.arange(6.0)), X, budget=mk.Evaluations(128), rng=0
    )
    assert estimate.provenance["pilot"]["chosen"] == "Recentred(points=8)"
    np.testing.assert_allclose(estimate.gradient, np.arange(6.0))


def test_a_subspace_gains_where_the_gradient_varies_along_few_directions():
    direction = np.random.default_rng(1).standard_normal((1, 40)) / np.sqrt(40)
    ridge, x, budget = PlaneWaves(direction * 1.5), np.linspace(-1, 1, 40), mk.Evaluations(2048)
    truth = ridge.smoothed_gradient(mk.Gaussian(1.0), x, np.ones(40))
    subspace = mk.Subspace(mk.Gaussian(1.0)).estimate(ridge, x, budget=budget, rng=0)
    recentred = mk.Pathwise(mk.Gaussian(1.0)).estimate(ridge, x, budget=budget, rng=0)
    assert np.square(subspace.standard_error).sum() < np.square(recentred.standard_error).sum() / 20
    assert (np.abs(subspace.gradient - truth) < 5 * subspace.standard_error).all()
    report = subspace.provenance["pilot"]
    assert report["share"] == pytest.approx(1)
    assert report["came"] > 20
