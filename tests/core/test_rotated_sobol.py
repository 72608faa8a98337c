"""A net along given directions: its law, its structure, its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals, Uniforms
from tests.core.closed_forms import KERNELS, waves
from tests.core.test_samplers_structured import F32, F64, FALSE_ALARM, normals
from tests.core.test_samplers_structured import assert_each_coordinate_is_normal as assert_normal

DIRECTIONS = np.random.default_rng(5).standard_normal((10, 10))
SAMPLERS = [mk.RotatedSobol(DIRECTIONS[:, :3], points=8), mk.RotatedSobol(DIRECTIONS, points=8)]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=["three", "all"])
SIX = np.linspace(-1, 1, 6)


class NotOrthonormal(mk.RotatedSobol):
    """A control: the directions as they were given."""

    def __post_init__(self):
        pass


@every_sampler
def test_every_point_is_standard_normal(sampler):
    assert_normal(sampler)
    z = normals(sampler, 4000)[:, 0].reshape(4000, -1)
    assert stats.kstest(np.square(z).sum(1), stats.chi2(10).cdf).pvalue > FALSE_ALARM
    correlations = np.corrcoef(z.T)[np.triu_indices(10, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(z))


def test_directions_that_are_not_orthonormal_would_fail_that():
    with pytest.raises(AssertionError):
        assert_normal(NotOrthonormal(DIRECTIONS / 3, points=8))


@every_sampler
def test_along_each_direction_the_points_are_stratified(sampler):
    frame = np.linalg.qr(DIRECTIONS)[0][:, : np.shape(sampler.directions)[1]]
    along = normals(sampler, 5).reshape(5, 8, 10) @ frame
    cells = np.sort(np.floor(stats.norm.cdf(along) * 8).astype(int), axis=1)
    assert (cells == np.arange(8)[None, :, None]).all()


@every_sampler
@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_groups_points_depend_on_its_number_alone(sampler, dtype):
    few = Key(1).groups(sampler, 3, 7, (2, 5), dtype, Normals).values
    many = Key(1).groups(sampler, 0, 40, (2, 5), dtype, Uniforms).values
    assert few.dtype == dtype
    assert few.shape == (4, 8, 2, 5)
    np.testing.assert_array_equal(few, many[3:7])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("k", [2, 6])
def test_estimates_agree_with_the_closed_form(kernel, k):
    sampler = mk.RotatedSobol(np.random.default_rng(k).standard_normal((6, k)), points=32)
    estimate = mk.Pathwise(kernel(0.7), sampler).estimate(waves(), SIX, budget=mk.Evaluations(1 << 14), rng=0)
    truth = waves().smoothed_gradient(kernel(1.0), SIX, np.full(6, 0.7))
    z = np.abs(estimate.gradient - truth) / estimate.standard_error
    assert z.max() < stats.t.isf(1e-4 / 12, estimate.degrees_of_freedom)
    wrong = waves().smoothed_gradient(kernel(1.0), SIX, np.full(6, 0.72))
    assert (np.abs(estimate.gradient - wrong) / estimate.standard_error).max() > z.max()


def test_the_name_tells_directions_apart():
    other = DIRECTIONS[:, :3] + 1e-6 * DIRECTIONS[:, 3:6]
    assert repr(SAMPLERS[0]) != repr(mk.RotatedSobol(other, points=8))
    assert repr(SAMPLERS[0]) == repr(mk.RotatedSobol(DIRECTIONS[:, :3], points=8))


@pytest.mark.parametrize(
    ("directions", "points", "message"),
    [
        (np.ones(5), 8, "columns"),
        (np.ones((2, 5)), 8, "columns"),
        (np.ones((5, 2)), 8, "linearly independent"),
        (np.full((5, 1), np.nan), 8, "not finite"),
        (np.eye(5), 12, "power of two"),
    ],
)
def test_directions_that_are_none_are_refused(directions, points, message):
    with pytest.raises(ValueError, match=message):
        mk.RotatedSobol(directions, points)


def test_directions_of_another_dimension_are_refused_by_the_estimator():
    with pytest.raises(ValueError, match="have 10 coordinates, and 6 coordinates of this input move"):
        mk.Pathwise(mk.Gaussian(1.0), SAMPLERS[0]).estimate(waves(), SIX, budget=mk.Evaluations(64))
