"""`mk.compare` against closed forms: f(x) = x' D x / 2 has the gradient D x and, at x + t, the error D t."""

import csv
import io
import json
from dataclasses import dataclass

import numpy as np
import pytest

import mollikit as mk
from mollikit.comparison import default_schemes
from mollikit.comparison.statistics import jackknife, slope
from mollikit.pointsets import Normals
from mollikit.samplers.independent import standard_normals

D = np.array([1.0, 2.0, 0.5, 3.0, 1.5, 0.25])
X = np.array([1.0, -1.0, 2.0, 0.5, 1.0, -2.0])
WIDTH = 0.4
KERNEL = mk.Gaussian(WIDTH)
# Every bound below is 4.5 standard errors of the measured figure: with some 40 looks at fixed seeds the
# chance that any would have failed by accident was below 3e-4.
SIGMAS = 4.5


class Bowl:
    def value_and_gradient(self, points, **held):
        return 0.5 * (D * points**2).sum(-1), D * points


class Waves:
    """Odd and even, linear and not: no scheme is exact."""

    def value_and_gradient(self, points, **held):
        return (np.sin(3 * points) + np.cos(2 * points)).sum(-1), 3 * np.cos(3 * points) - 2 * np.sin(
            2 * points
        )


@dataclass(frozen=True)
class Copied(mk.Sampler):
    """It calls each of a run of equal points a group of its own: its error bars are a lie."""

    def group_size(self, dimension):
        return 1

    def draw(self, rng, groups, shape, dtype, view):
        z = standard_normals(rng, (-(-groups // 4), 1, *shape), dtype)
        return Normals(np.repeat(z, 4, axis=0)[:groups])


def measured(oracle=None, **options):
    options = {"kernel": KERNEL, "rounds": 64, "seconds": None, "rng": 0} | options
    return mk.compare(oracle or Waves(), X, **options)


@pytest.fixture(scope="module")
def waves():
    views = {"sum": lambda gradients: gradients.sum(-1, keepdims=True)}
    return measured(views=views)


def test_the_error_of_independent_points_is_that_of_the_closed_form():
    result = measured(Bowl(), schemes={"a": mk.Independent(), "b": mk.Antithetic()})
    for n in (64, 256):
        row = result.row("a", n)
        exact = WIDTH * np.linalg.norm(D) / np.sqrt(n) / np.linalg.norm(D * X)
        assert abs(row.error - exact) < SIGMAS * row.error_spread
        assert abs(row.stated - 1) < 0.1
    # Pairs cancel what is odd about x, and this error is odd: the gain is that of rounding, and no less.
    assert result.row("b", 256).gain > 1e20
    assert result.recommended == "b"
    with pytest.raises(KeyError, match=r"no row of 'c' at 64 .* there are \['a', 'b'\], \[64, 256\]"):
        result.row("c", 64)
    with pytest.raises(KeyError, match=r"no 'c' for 'map': there are \['a', 'b'\]"):
        result.prospect("c")


def test_gains_are_those_of_the_variances():
    """Antithetic pairs keep the even part of the gradient's noise, twice over; from E[cos] and E[sin]."""
    result = measured(schemes={"a": mk.Independent(), "b": mk.Antithetic()})
    s2, c, s = WIDTH**2, np.cos, np.sin
    # grad = 3 cos(3x+3t) - 2 sin(2x+2t); the even part in t: 3 cos(3x) cos(3t) - 2 sin(2x) cos(2t).
    even = np.stack([3 * c(3 * X), -2 * s(2 * X)])
    odd = np.stack([-3 * s(3 * X), -2 * c(2 * X)])
    k = np.array([3.0, 2.0])
    phi = np.exp(-(k**2) * s2 / 2)
    both = np.exp(-((k[:, None] + k) ** 2) * s2 / 2), np.exp(-((k[:, None] - k) ** 2) * s2 / 2)
    of_cosines = (both[0] + both[1]) / 2 - np.outer(phi, phi)
    of_sines = (both[1] - both[0]) / 2
    even_variance = np.einsum("id,ij,jd->", even, of_cosines, even)
    odd_variance = np.einsum("id,ij,jd->", odd, of_sines, odd)
    exact = (even_variance + odd_variance) / (2 * even_variance)
    for n in (64, 256):
        row = result.row("b", n)
        assert row.gain_low < exact < row.gain_high


def test_slopes():
    numbers = np.array([16, 64, 256])
    exact, error = slope(numbers, np.tile(1.0 / numbers, (5, 1)))
    assert exact == pytest.approx(-0.5, abs=1e-14)
    assert error == pytest.approx(0, abs=1e-14)


def test_nets_gain_in_the_rate_and_independent_points_do_not(waves):
    plain, net = waves.prospect("Independent"), waves.prospect("Sobol")
    assert abs(plain.slope + 0.5) < SIGMAS * plain.slope_spread
    assert net.slope < -0.5 - 3 * net.slope_spread


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=30)
    mean, error = jackknife(lambda values: float(values.mean()), x)
    assert mean == pytest.approx(x.mean(), rel=1e-14)
    assert error == pytest.approx(x.std(ddof=1) / np.sqrt(30), rel=1e-12)


def test_intervals_cover(waves):
    for row in waves.rows:
        assert abs(row.coverage - 0.95) < SIGMAS * row.coverage_spread + 0.005


def test_a_lying_error_bar_is_seen_and_not_recommended():
    """The negative control: points that are copies of each other."""
    result = measured(schemes={"honest": mk.Independent(), "copied": Copied()}, evaluations=[256])
    row = result.row("copied", 256)
    assert row.coverage + 4 * row.coverage_spread < 0.9
    assert row.stated < 0.7
    assert result.recommended == "honest"


def test_the_truth_and_the_views(waves):
    truth = 3 * np.exp(-9 * WIDTH**2 / 2) * np.cos(3 * X) - 2 * np.exp(-4 * WIDTH**2 / 2) * np.sin(2 * X)
    error = np.linalg.norm(waves.truth["map"] - truth) / np.linalg.norm(truth)
    assert error < 3 * waves.row("Independent", 256).error / np.sqrt(64)
    assert waves.truth["sum"].shape == (1,)
    assert waves.truth["sum"][0] == pytest.approx(waves.truth["map"].sum(), rel=1e-12)
    assert waves.quantities == ("map", "sum")
    assert waves.examples["Sobol", "map"].shape == X.shape


def test_the_same_seed_measures_the_same():
    one, two = (measured(rounds=4).to_json() for _ in range(2))
    for told in (one, two):
        told.pop("seconds")
        told.pop("prospects")
        told.pop("recommendation")
        told.pop("recommended")
    assert one == two
    assert measured(rounds=4, rng=1).rows != measured(rounds=4).rows


def test_every_gradient_is_counted_once():
    class Counting(Waves):
        rows = 0

        def value_and_gradient(self, points, **held):
            Counting.rows += len(points)
            return super().value_and_gradient(points)

    schemes = {"a": mk.Independent(), "b": lambda n: mk.LatinHypercube(n // 8)}
    result = measured(Counting(), schemes=schemes, rounds=4, block=64)
    # What a scheme of fixed groups computed for 64 is a part of its 256.
    assert result.n_evaluations == 4 * (256 + 256 + 64) == Counting.rows


def test_a_scheme_is_charged_for_what_it_used():
    schemes = {"a": mk.Independent(), "b": mk.Recentred(7)}
    result = measured(Bowl(), schemes=schemes, evaluations=[64], rounds=4)
    assert result.row("b", 64).groups == 9


def test_estimators_from_values_are_schemes_too():
    class Values:
        def value(self, points, **held):
            return (np.sin(points) + points**2).sum(-1)

    schemes = {"score": mk.ScoreFunction(KERNEL), "secant": mk.Secant(KERNEL)}
    result = measured(Values(), schemes=schemes, evaluations=[192], rounds=8)
    assert result.recommended == "secant"
    assert result.row("secant", 192).gain > 10


def test_schemes_with_a_pilot_are_charged_for_it():
    narrow = mk.Gaussian(0.1)
    schemes = {"plain": mk.Independent(), "pilot": mk.Adaptive(narrow, pilot=32)}
    result = measured(kernel=narrow, schemes=schemes, evaluations=[128], rounds=16)
    row = result.row("pilot", 128)
    assert row.gain_low > 1.5
    assert abs(row.coverage - 0.95) < SIGMAS * row.coverage_spread + 0.005
    assert result.n_evaluations <= 16 * 2 * 128
    with pytest.raises(ValueError, match="compare at 128 or more"):
        measured(schemes={"plain": mk.Independent(), "pilot": mk.Adaptive(KERNEL)}, evaluations=[64])


def test_a_model_without_noise_has_nothing_to_compare():
    class Flat:
        def value_and_gradient(self, points, **held):
            return points.sum(-1), np.ones_like(points)

    result = measured(Flat(), rounds=4)
    assert all(row.error == 0 for row in result.rows)
    assert "exact" in result.recommendation


@pytest.mark.parametrize(("seed", "resolved"), [(0, True), (1, False)])
def test_a_gradient_of_zero_is_never_known_to_less_than_itself(seed, resolved):
    """Its squared norm is estimated as something small, or as nothing at all; both happen at these seeds."""

    class Zero:
        def value_and_gradient(self, points, **held):
            return (points - X).sum(-1) * 0, points - X

    schemes = {"a": mk.Independent(), "b": mk.LatinHypercube(4)}
    result = measured(Zero(), schemes=schemes, rounds=4, rng=seed)
    row, prospect = result.row("a", 256), result.prospect("a")
    assert row.error > 1
    assert np.isfinite(row.error) == np.isfinite(prospect.evaluations) == resolved
    assert ("does not stand out" in result.recommendation) != resolved
    assert result.to_json()["rows"][0]["error"] is None or resolved


def test_it_is_told(waves):
    rows = list(csv.DictReader(io.StringIO(waves.to_csv())))
    assert len(rows) == len(waves.rows) == 2 * 2 * len(waves.schemes)
    assert float(rows[0]["error"]) == waves.rows[0].error
    assert json.loads(json.dumps(waves.to_json(), allow_nan=False))["recommended"] == waves.recommended
    assert waves.recommendation in str(waves)
    assert waves.recommendation in waves._repr_html_().replace("&#x27;", "'")
    assert waves.recommended != "Independent"


def test_left_out_schemes_say_why():
    schemes, left_out = default_schemes(dimension=30000, shape=(30000,), evaluations=64)
    assert "21201" in left_out["Sobol"]
    assert "grid" in left_out["LocalBlocks"]
    assert "Sobol" not in schemes


def test_ctrl_c_keeps_what_was_measured():
    class Impatient(Waves):
        calls = 0

        def value_and_gradient(self, points, **held):
            Impatient.calls += 1
            if Impatient.calls > 60:
                raise KeyboardInterrupt
            return super().value_and_gradient(points)

    schemes = {"a": mk.Independent(), "b": mk.Antithetic()}
    with pytest.raises(mk.ComparisonInterrupted) as caught:
        measured(Impatient(), schemes=schemes, block=64)
    partial = caught.value.partial
    assert partial is not None
    assert partial.rounds == 7
    assert len(partial.rows) == 4
    Impatient.calls = 55
    with pytest.raises(mk.ComparisonInterrupted) as caught:
        measured(Impatient(), schemes=schemes, block=64)
    assert caught.value.partial is None


def test_a_clock_leaves_at_least_four_rounds():
    assert measured(rounds=64, seconds=1e-6).rounds == 4


def test_progress_ends():
    seen = []
    measured(rounds=4, progress=seen.append)
    assert [p.done for p in seen].count(True) == 1
    assert seen[-1].done
    assert seen[-1].share == 1


@dataclass(frozen=True)
class Biased(mk.Independent):
    biased = True


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rounds": 3}, ValueError, "even number"),
        ({"rounds": 2}, ValueError, "even number"),
        ({"evaluations": []}, ValueError, "at least 16"),
        ({"evaluations": [8]}, ValueError, "at least 16"),
        ({"error": -1.0}, ValueError, "error=-1.0"),
        ({"seconds": 0.0}, ValueError, "seconds=0.0"),
        ({"view": "sum"}, ValueError, "no such view"),
        ({"views": {"map": lambda g: g}}, ValueError, "cannot be named"),
        ({"schemes": {"one": mk.Independent()}}, ValueError, "nothing to compare"),
        ({"schemes": {"a": mk.Independent(), "b": 3}}, TypeError, "'b' is 3"),
        ({"schemes": {"a": mk.Independent(), "b": Biased()}}, ValueError, "biased"),
        (
            {"schemes": {"a": mk.Independent(), "b": mk.Pathwise(mk.Gaussian(0.1))}},
            ValueError,
            "other estimands",
        ),
        ({"schemes": {"a": mk.Independent(), "b": mk.Sobol(64)}, "evaluations": [64]}, ValueError, "needs 8"),
    ],
)
def test_bad_input_is_refused(options, error, words):
    class Untouched:
        def value_and_gradient(self, points, **held):
            raise AssertionError("the model was asked")

    with pytest.raises(error, match=words):
        measured(Untouched(), **options)
