"""Smoothing of weights: the laws, the estimand in closed form, the choice of weights, and bad input."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.estimators import weights as module
from mollikit.estimators.weights import WeightPerturbation
from mollikit.testing import rounding
from tests.core.closed_forms import Cubic
from tests.core.test_unbiased import assert_agrees
from tests.core.weighted_forms import Product, cubes, product, smoothed_cubes, smoothed_product

X = np.random.default_rng(1).standard_normal(6)
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(4))
TENTH = mk.Gaussian(mk.OfMagnitude(0.3))

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def models(weights, laws, sampler=SAMPLERS[0], groups=1, seed=5):
    """The weights of the models of the first groups, stacked by name."""
    perturbation = WeightPerturbation.of(weights, laws, sampler)
    drawn = []
    for group in range(groups):
        together = perturbation.group(weights, Key(seed), group)
        drawn += [together.model(member) for member in range(perturbation.group_size)]
    return {name: np.stack([model[name] for model in drawn]) for name in drawn[0]}


@every_sampler
@pytest.mark.parametrize("kernel", [mk.Gaussian, mk.Uniform])
@pytest.mark.parametrize("inputs", [None, 0.4])
@pytest.mark.parametrize("scale", [mk.OfMagnitude(0.5), mk.Width(0.5)], ids=repr)
def test_gradients_agree_with_the_closed_form(sampler, kernel, inputs, scale):
    net, law = cubes(), kernel(scale)
    a, b = net.weights.values()
    smooth = mk.Pathwise(
        None if inputs is None else mk.Logistic(inputs), weights=law, weights_sampler=sampler
    )
    estimate = smooth.estimate(net, X, budget=mk.Evaluations(1 << 11 if inputs is None else 1 << 14), rng=5)
    of_a, of_b = (kernel(1.0).variance * law.widths(v) ** 2 for v in (a, b))
    of_x = 0 if inputs is None else mk.Logistic(1.0).variance * inputs**2
    truth = smoothed_cubes(X, a, b, inputs=of_x, weights=of_a, biases=of_b)
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)
    for forgotten in ({"weights": of_a}, {"biases": of_b}, {"weights": of_a**2, "biases": of_b**2}):
        other = smoothed_cubes(X, a, b, inputs=of_x, **forgotten)
        with pytest.raises(AssertionError, match="standard errors from the truth"):
            assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, other)


@every_sampler
def test_a_weight_shared_by_coordinates_agrees_with_the_closed_form(sampler):
    net, x = product(), X[:5]
    estimate = mk.Pathwise(weights=TENTH, weights_sampler=sampler).estimate(
        net, x, budget=mk.Evaluations(1 << 11), rng=2
    )
    w = net.weights["W"]
    truth = smoothed_product(x, w, (0.3 * w) ** 2)
    assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, truth)
    with pytest.raises(AssertionError, match="standard errors from the truth"):
        assert_agrees(estimate.gradient, estimate.standard_error, estimate.degrees_of_freedom, x @ w @ w.T)


def test_the_part_that_is_linear_in_the_weights_is_exact_under_antithetic_and_recentred_models():
    net = cubes()
    a, b = net.weights.values()
    law = {"*.bias": None, "*.weight": mk.Gaussian(1e-4)}  # so narrow that curvature is rounding
    for sampler, least in ((mk.Antithetic(), 0.0), (mk.Recentred(4), 0.0), (mk.Independent(), 1e-7)):
        estimate = mk.Pathwise(weights=law, weights_sampler=sampler).estimate(
            net, X, budget=mk.Evaluations(64), rng=0
        )
        assert (estimate.relative_error < 1e-7) == (least == 0.0)
    np.testing.assert_allclose(estimate.gradient, a * (a * X + b) ** 2, rtol=1e-3)


@every_sampler
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_models_have_the_law(sampler, dtype):
    weights = {"a": np.full((40, 25), 2, dtype), "b": np.zeros(3, dtype)}
    drawn = models(weights, mk.Gaussian(mk.OfMagnitude(0.1)), sampler, groups=8)
    assert set(drawn) == {"a"}, "a tensor without width is left alone"
    assert drawn["a"].dtype == dtype
    z = (drawn["a"].astype(float) - 2) / 0.2
    assert abs(z.std() - 1) < 5 * np.sqrt(0.5 / z.size) + rounding(dtype)
    # Each member by itself is normal: false alarm 1e-4 of each, five thousand points of float16 are ties.
    for member in z[: sampler.group_size(1)]:
        if dtype != np.float16:
            assert stats.kstest(member.ravel(), "norm").pvalue > 1e-4


def test_coordinates_without_width_stay_and_move_nobody_elses_numbers():
    dense, holes = np.ones(50), np.ones(50)
    holes[::3] = 0
    laws = mk.Gaussian(mk.OfMagnitude(0.1))
    whole, some = (models({"w": w}, laws)["w"][0] for w in (dense, holes))
    assert (some[::3] == 0).all()
    np.testing.assert_array_equal(some[holes > 0], whole[holes > 0])


def test_a_tensors_numbers_depend_on_its_name_and_not_on_the_others():
    one = {"w": np.ones(20)}
    several = {"first": np.ones(7), "w": np.ones(20), "u": np.ones(20)}
    alone, among = models(one, TENTH)["w"], models(several, TENTH)
    np.testing.assert_array_equal(alone, among["w"])
    assert not np.array_equal(among["w"], among["u"])


@every_sampler
def test_points_held_and_points_drawn_again_are_the_same_bits(sampler, monkeypatch):
    weights = {"a": np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32), "b": np.ones(7)}
    laws = {"a": mk.Laplace(mk.OfMagnitude(0.2)), "b": mk.Truncated(mk.Gaussian(0.3), low=0.5)}
    held = models(weights, laws, sampler, groups=3)
    monkeypatch.setattr(module, "_HELD", 0)
    again = models(weights, laws, sampler, groups=3)
    for name in weights:
        np.testing.assert_array_equal(held[name], again[name])
    assert held["b"].min() >= 0.5


def test_the_streams_of_weights_are_apart_from_those_of_inputs():
    from hashlib import blake2b

    address = int.from_bytes(blake2b(b"w", digest_size=8).digest(), "little")
    shape, normals = (500,), mk.Gaussian(1.0).view
    arguments = (shape, np.dtype(float), normals)
    inputs = Key(3, address).groups(mk.Independent(), 0, 40, *arguments).values.reshape(40, 500)
    weights = [Key(3).of_weights(mk.Independent(), "w", g, *arguments).values.ravel() for g in range(40)]
    assert not set(inputs.ravel()) & set(np.ravel(weights))
    assert len(set(np.ravel(weights))) == 40 * 500


@pytest.mark.parametrize(
    ("laws", "moved"),
    [
        (TENTH, {"layer.weight", "layer.bias"}),
        ({"*.weight": TENTH}, {"layer.weight"}),
        ({"layer.bias": None, "*": TENTH}, {"layer.weight"}),
        ({"*": TENTH, "layer.bias": None}, {"layer.weight", "layer.bias"}),  # the first that matches decides
        ({"layer.[bw]*": mk.Gaussian(0.1)}, {"layer.weight", "layer.bias"}),
    ],
)
def test_patterns_choose_weights(laws, moved):
    assert set(models(cubes().weights, laws)) == moved


def test_evaluations_count_gradients_and_groups_count_groups_of_models():
    calls = []

    class Counting(Product):
        def value_and_gradient(self, points):
            calls.append((len(points), self.weights["W"].tobytes()))
            return super().value_and_gradient(points)

    net = Counting(product().weights)
    smooth = mk.Pathwise(
        mk.Gaussian(0.1), mk.Recentred(4), weights=TENTH, weights_sampler=mk.Antithetic(), inputs_per_model=12
    )
    estimate = smooth.estimate(net, X[:5], budget=mk.Evaluations(100), rng=0)
    assert (estimate.group_size, estimate.n_groups, estimate.n_evaluations) == (24, 4, 96)
    assert [rows for rows, _ in calls] == [12] * 8
    assert len({model for _, model in calls}) == 8
    calls.clear()
    # A block of fewer rows than there are under a model: several calls, the last one padded.
    small = mk.Pathwise(mk.Gaussian(0.1), mk.Recentred(4), weights=TENTH, inputs_per_model=12, block=5)
    again = small.estimate(net, X[:5], budget=mk.Evaluations(100), rng=0)
    assert {rows for rows, _ in calls} == {5}
    assert len(calls) == 8 * 3
    np.testing.assert_allclose(again.gradient, estimate.gradient, rtol=1e-12)
    np.testing.assert_allclose(again.standard_error, estimate.standard_error, rtol=1e-9)


def test_the_default_is_one_group_of_inputs_for_each_of_a_pair_of_models():
    both = mk.Pathwise(mk.Gaussian(0.1), weights=TENTH).estimate(
        product(), X[:5], budget=mk.Evaluations(64), rng=0
    )
    alone = mk.Pathwise(weights=TENTH).estimate(product(), X[:5], budget=mk.Evaluations(64), rng=0)
    assert (both.group_size, alone.group_size) == (16, 2)


def test_the_provenance_tells_of_the_weights():
    laws = {"*.bias": None, "*": TENTH}
    smooth = mk.Pathwise(mk.Gaussian(0.1), weights=laws)
    about = smooth.estimate(cubes(), X, budget=mk.Evaluations(32), rng=0).provenance
    assert about["weights"] | {"sha256": ""} == {
        "laws": {"*.bias": "None", "*": repr(TENTH)},
        "sampler": "Antithetic()",
        "inputs_per_model": 8,
        "tensors": 1,
        "coordinates": 6,
        "sha256": "",
    }
    assert about["estimand"] == "gradient of the smoothed function, its weights smoothed too"
    other = smooth.estimate(cubes(seed=1), X, budget=mk.Evaluations(32), rng=0).provenance
    assert about["weights"]["sha256"] != other["weights"]["sha256"]
    only = mk.Pathwise(weights=laws).estimate(cubes(), X, budget=mk.Evaluations(32), rng=0).provenance
    assert only["estimand"] == "gradient of the function smoothed in its weights"
    assert only["kernels"] is None


def test_views_and_the_output_have_error_bars_over_groups_of_models():
    net = cubes()
    a, b = net.weights.values()
    estimate = mk.Pathwise(weights=mk.Gaussian(mk.OfMagnitude(0.3))).estimate(
        net, X, views={"sum": lambda g: g.sum(-1)}, budget=mk.Evaluations(1 << 11), rng=3
    )
    truth = smoothed_cubes(X, a, b, weights=0.09 * a**2, biases=0.09 * b**2).sum()
    view = estimate.views["sum"]
    assert view.degrees_of_freedom == estimate.n_groups - 1 == (1 << 10) - 1
    assert_agrees(view.value, view.standard_error, view.degrees_of_freedom, np.asarray(truth))
    value = ((a * X + b) ** 3 / 3 + (a * X + b) * 0.09 * (a**2 * X**2 + b**2)).sum()
    output = estimate.output
    assert_agrees(output.value, output.standard_error, output.degrees_of_freedom, np.asarray(value))


def peak(oracle, x, budget, sampler):
    smooth = mk.Pathwise(weights=TENTH, weights_sampler=sampler)
    tracemalloc.start()
    smooth.estimate(oracle, x, budget=mk.Evaluations(budget), rng=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


class Wide(Product):
    """Sixteen tensors of a quarter of a megabyte; the gradient looks at the corner of one."""

    def value_and_gradient(self, points):
        corner = self.weights["0"][: points.shape[1], :2]
        hidden = points @ corner
        return (hidden**2).sum(1) / 2, hidden @ corner.T


@every_sampler
def test_memory_is_one_replica_beyond_the_model_and_flat_in_n(sampler, monkeypatch):
    monkeypatch.setattr(module, "_HELD", 0)
    oracle = Wide({str(k): np.ones((256, 256), np.float32) for k in range(16)})
    tensor = 1 << 18
    small, large = (peak(oracle, np.ones(4), n, sampler) for n in (8, 24))
    # Beside the replica: the group of one tensor, and its widths and steps in double precision.
    assert small < (16 + sampler.group_size(1) + 8) * tensor
    assert abs(large - small) < tensor


BAD = {
    "nothing": (TypeError, "inputs= or weights=", {}),
    "count": (
        ValueError,
        "used at least once",
        {"inputs": mk.Gaussian(1.0), "weights": TENTH, "inputs_per_model": 0},
    ),
    "still": (ValueError, "the same each time", {"weights": TENTH, "inputs_per_model": 4}),
    "lost": (ValueError, "give weights=", {"inputs": mk.Gaussian(1.0), "inputs_per_model": 8}),
}


@pytest.mark.parametrize(("error", "message", "arguments"), BAD.values(), ids=BAD)
def test_settings_that_cannot_be(error, message, arguments):
    with pytest.raises(error, match=message):
        mk.Pathwise(**arguments)


REFUSED = {
    "pattern": (ValueError, r"no weight is named like 'layers.\*'.*'layer", {"layers.*": TENTH}),
    "law": (TypeError, "which is not a kernel", {"*": 0.2}),
    "none": (ValueError, "no weight would move", {"*": None}),
    "shape": (ValueError, "weight 'layer.weight': the scale has shape", mk.Gaussian(np.ones(7))),
    "importance": (
        ValueError,
        "give its kernel itself",
        mk.Importance(mk.Gaussian(0.1), proposal=mk.Gaussian(0.11)),
    ),
}


@pytest.mark.parametrize(("error", "message", "laws"), REFUSED.values(), ids=REFUSED)
def test_weights_that_cannot_be_smoothed(error, message, laws):
    with pytest.raises(error, match=message):
        mk.Pathwise(weights=laws).estimate(cubes(), X, budget=mk.Evaluations(32), rng=0)


def test_oracles_and_samplers_that_cannot_be():
    def estimate(oracle=None, **options):
        return mk.Pathwise(weights=TENTH, **options).estimate(oracle or cubes(), X, budget=mk.Evaluations(64))

    with pytest.raises(TypeError, match="Cubic has no weights and reweighted"):
        estimate(Cubic())
    with pytest.raises(ValueError, match="shows no weights of floats"):
        estimate(Product({}))
    with pytest.raises(TypeError, match="weight 'W' is of int64"):
        estimate(Product({"W": np.ones((6, 2), int)}))
    with pytest.raises(ValueError, match="weight 'W' holds values that are NaN"):
        estimate(Product({"W": np.full((6, 2), np.nan)}))
    with pytest.raises(ValueError, match=r"no weight would move.*zero for every coordinate"):
        estimate(Product({"W": np.zeros((6, 2))}))
    with pytest.raises(ValueError, match=r"Sobol.*Independent"):
        WeightPerturbation.of(cubes().weights, TENTH, mk.Sobol())
    with pytest.raises(ValueError, match=r"Lattice.*Independent"):
        WeightPerturbation.of(cubes().weights, TENTH, mk.Lattice(64))
    with pytest.raises(ValueError, match=r"inputs_per_model=12 is not a number of whole groups.*give 16"):
        estimate(inputs=mk.Gaussian(0.1), inputs_per_model=12)
    with pytest.raises(ValueError, match="allows 1 groups of 16"):
        mk.Pathwise(mk.Gaussian(0.1), weights=TENTH).estimate(cubes(), X, budget=mk.Evaluations(31))


def test_a_nan_under_some_weights_names_the_groups():
    class Breaking(Product):
        def value_and_gradient(self, points):
            value, gradient = super().value_and_gradient(points)
            return value, np.where(self.weights["W"][0, 0] > 0.13, np.nan, gradient)

    net = Breaking({"W": np.full((6, 2), 0.1)})
    with pytest.raises(FloatingPointError, match=r"NaN or infinite at .* of groups"):
        mk.Pathwise(weights=TENTH).estimate(net, X, budget=mk.Evaluations(256), rng=0)
