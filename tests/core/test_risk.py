"""How well a stated risk is known: its standard error, and intervals that cover the real squared error."""

import numpy as np
import pytest
from scipy.special import stdtrit

import mollikit as mk
from mollikit.surrogates.products import Products
from mollikit.surrogates.shrinkage import cross_power, drawn_towards
from mollikit.surrogates.uncertainty import Uncertainty
from tests.core.test_combined import PATHWISE, Fixed, off
from tests.core.test_shrunk import SHAPE, SMOOTH_IMAGE, White

FOLDS, DRAWS = 8, 400


def normal(rng, size):
    return np.sqrt(FOLDS) * rng.standard_normal((FOLDS, size))


def tails(rng, size):
    return 2 * rng.standard_t(4, (FOLDS, size))


def unequal(rng, size):
    deviation = np.arange(1, size + 1) ** -0.5
    return normal(rng, size) * deviation * np.sqrt(size / np.square(deviation).sum())


def audited(folds, surrogate, bands):
    products = Products.of(folds, surrogate, np.zeros(surrogate.size, np.intp))
    return surrogate, cross_power(folds, surrogate), Uncertainty.of(products, np.zeros(1))


def drawn(folds, surrogate, bands):
    found = drawn_towards(folds, surrogate, np.arange(surrogate.size) * bands // surrogate.size)
    return found.estimate, found.total_risk, found.uncertainty


def over_draws(make, law, size, off_by, bands=1, draws=DRAWS):
    """Stated less real squared error, its standard error and the half-width of the interval, by draw."""
    rng, found = np.random.default_rng(3), []
    surrogate = 1 + off_by * rng.choice([-1, 1], size)
    for _ in range(draws):
        estimate, risk, about = make(1 + law(rng, size), surrogate, bands)
        half = stdtrit(about.degrees_of_freedom, 0.975) * about.standard_error
        found.append((risk - np.square(estimate - 1).sum(), about.standard_error, half))
    return np.array(found).T


# The noise of the mean is 1 in each of `size` directions, so that off by 1 is as much as the noise.
@pytest.mark.parametrize("off_by", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("size", [4, 20, 200])
@pytest.mark.parametrize("law", [normal, tails, unequal])
@pytest.mark.parametrize("make", [audited, drawn])
def test_intervals_cover(make, law, size, off_by):
    error, _, half = over_draws(make, law, size, off_by, bands=1 if size < 200 else 4)
    # Four standard errors of 400 draws below the least that longer runs found.
    least = 0.91 if make is audited else 0.92
    assert np.mean(np.abs(error) <= half) > least - 4 * np.sqrt(least * (1 - least) / DRAWS)


def test_the_standard_error_of_an_audit_is_right_on_average():
    error, se, _ = over_draws(audited, normal, 50, 3.0, draws=2000)
    squares = np.square(error) - np.square(se)
    assert abs(squares.mean()) < 4 * squares.std() / np.sqrt(2000)


def test_without_the_error_along_the_bias_intervals_do_not_cover():
    # The negative control: as if the noise of the folds had no part along what the surrogate is off by.
    def blind(folds, surrogate, bands):
        products = Products.of(folds, surrogate, np.zeros(surrogate.size, np.intp))
        across = Products(products.gram, np.zeros_like(products.along), products.power)
        return surrogate, cross_power(folds, surrogate), Uncertainty.of(across, np.zeros(1))

    error, _, half = over_draws(blind, normal, 50, 3.0)
    assert np.mean(np.abs(error) <= half) < 0.7


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", [mk.Audited, mk.Combined, mk.Shrunk])
def test_the_estimators_intervals_cover(kind, size):
    estimator = kind(PATHWISE, Fixed(off(size))) if kind is not mk.Shrunk else mk.Shrunk(PATHWISE)
    view = mk.ChannelSum(0).then(mk.Pool(4))
    oracle, budget = White(SMOOTH_IMAGE, 4.0), mk.Evaluations(36)
    truth = view(SMOOTH_IMAGE[None])[0]
    covered = {"map": 0, "view": 0}
    for seed in range(100):
        run = estimator.estimate(oracle, np.zeros(SHAPE), budget=budget, rng=seed, views={"seen": view})
        low, high = run.risk_interval(0.95)
        covered["map"] += low <= np.square(run.gradient - SMOOTH_IMAGE).sum() <= high
        low, high = run.views["seen"].risk_interval(0.95)
        covered["view"] += low <= np.square(run.views["seen"].value - truth).sum() <= high
    # Of 100 at 95%: 0.4% of all seeds would give fewer than 88.
    assert min(covered.values()) >= 88, covered


def test_an_interval_is_never_below_zero_and_is_told():
    run = mk.Audited(PATHWISE, Fixed(SMOOTH_IMAGE)).estimate(
        White(SMOOTH_IMAGE, 4.0), np.zeros(SHAPE), budget=mk.Evaluations(36), rng=0
    )
    low, high = run.risk_interval()
    assert low == 0
    assert run.risk < high
    _, most = run.relative_interval()
    assert most == pytest.approx(np.sqrt(high / run.signal))
    assert f"(0 to {100 * most:.3g}%)" in repr(run)
    assert run.risk_interval(0.5)[1] < high
    with pytest.raises(ValueError, match=r"level=95"):
        run.risk_interval(95)


def test_three_folds_tell_a_risk_and_not_how_well_it_is_known():
    run = mk.Shrunk(PATHWISE, folds=3).estimate(
        White(SMOOTH_IMAGE, 1.0), np.zeros(SHAPE), budget=mk.Evaluations(36), rng=0
    )
    assert run.risk_interval() == (0, np.inf)
    assert "(0 to ?%)" in repr(run)


def test_maps_without_noise_have_a_risk_that_is_known():
    maps = np.tile(np.arange(6.0), (5, 1))
    assert drawn_towards(maps, None, np.zeros(6, np.intp)).uncertainty.standard_error == 0
