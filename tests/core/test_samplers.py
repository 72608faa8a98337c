from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals, Uniforms
from mollikit.samplers.base import open_uniforms
from mollikit.testing import rounding
from tests.core.closed_forms import KERNELS, SAMPLERS

CDF = {
    mk.Gaussian: stats.norm.cdf,
    mk.Uniform: stats.uniform(-1, 2).cdf,
    mk.Logistic: stats.logistic.cdf,
    mk.Laplace: stats.laplace.cdf,
}
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
FALSE_ALARM = 1e-3  # of a whole group, by Bonferroni over its positions

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
every_view = pytest.mark.parametrize("view", [Normals, Uniforms])


@dataclass(frozen=True)
class WrongVariance(mk.Recentred):
    """A control: the factor sqrt(g / (g - 1)) forgotten."""

    points: int = 4

    def draw(self, *arguments):
        return Normals(super().draw(*arguments).values * np.sqrt(1 - 1 / self.points))


@dataclass(frozen=True)
class LastWithoutNoise(mk.Recentred):
    """A control: the last sample of each group silently without noise."""

    def draw(self, *arguments):
        values = super().draw(*arguments).values
        values[:, -1] = 0
        return Normals(values)


def draw(sampler, stop, shape, view=Normals, dtype=F64, start=0, seed=0, item=0):
    return Key(seed, item).groups(sampler, start, stop, shape, dtype, view)


def assert_each_position_has_the_law(sampler, kernel, groups=20_000):
    points = draw(sampler, groups, (1,), kernel.view)
    steps = kernel.displacements(points)[..., 0]
    positions = sampler.group_size(1)
    assert steps.shape == (groups, positions)
    worst = min(stats.kstest(steps[:, k], CDF[type(kernel)]).pvalue for k in range(positions))
    assert worst > FALSE_ALARM / positions


@every_sampler
@pytest.mark.parametrize("kernel", [K(1.0) for K in KERNELS], ids=repr)
def test_every_position_of_a_group_has_exactly_the_kernels_law(sampler, kernel):
    assert_each_position_has_the_law(sampler, kernel)


@pytest.mark.parametrize("sampler", [WrongVariance(), LastWithoutNoise()], ids=repr)
@pytest.mark.parametrize("kernel", [K(1.0) for K in KERNELS], ids=repr)
def test_a_sampler_of_another_law_fails_that_check(sampler, kernel):
    with pytest.raises(AssertionError):
        assert_each_position_has_the_law(sampler, kernel)


@every_sampler
@every_view
def test_coordinates_of_a_point_are_uncorrelated_and_groups_independent(sampler, view):
    points = mk.Gaussian(1.0).displacements(draw(sampler, 20_000, (3,), view))
    first = points[:, 0]
    pairs = [(first[:, 0], first[:, 1]), (first[:, 0], first[:, 2]), (first[:-1, 0], first[1:, 0])]
    # Uncorrelated normals have a correlation of standard error 1 / sqrt(n): 4.5 of them, 2e-5 in all.
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(len(a))


@given(
    sampler=st.sampled_from([*SAMPLERS, mk.Recentred(3), mk.LatinHypercube(7), mk.Sobol(4)]),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    start=st.integers(0, 40),
    count=st.integers(1, 40),
    view=st.sampled_from([Normals, Uniforms]),
    dtype=st.sampled_from([F32, F64]),
)
@settings(max_examples=80, deadline=None)
def test_a_groups_points_depend_on_its_number_alone(sampler, shape, start, count, view, dtype):
    ranged = draw(sampler, start + count, shape, view, dtype, start)
    whole = draw(sampler, start + count + 3, shape, view, dtype)
    dimension = int(np.prod(shape))
    assert ranged.values.shape == (count, sampler.group_size(dimension), *shape)
    assert type(ranged) is type(whole)
    np.testing.assert_array_equal(ranged.values, whole.values[start : start + count])
    one_by_one = [draw(sampler, g + 1, shape, view, dtype, g).values for g in range(start, start + count)]
    np.testing.assert_array_equal(ranged.values, np.concatenate(one_by_one))


def test_ranges_that_cross_streams_are_the_same_points():
    # 16384 values in a stream: here 4 groups of 8 points.
    sampler, shape = mk.Recentred(8), (512,)
    whole = draw(sampler, 40, shape).values
    for start, stop in [(0, 1), (3, 5), (2, 23), (31, 40)]:
        np.testing.assert_array_equal(draw(sampler, stop, shape, start=start).values, whole[start:stop])


@every_sampler
@every_view
def test_points_are_of_the_dtype_asked_for_and_inside_the_cube(sampler, view):
    points = draw(sampler, 200, (5,), view, F32)
    if isinstance(points, Normals):
        assert points.values.dtype == F32
    else:
        assert points.values.dtype == F64
        assert points.values.min() > 0
        assert points.values.max() < 1


@every_sampler
def test_nothing_repeats_between_groups_items_and_seeds(sampler):
    drawn = [draw(sampler, 50, (4,), seed=s, item=i).values for s, i in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    values = np.concatenate([d.ravel() for d in drawn])
    if isinstance(sampler, mk.Antithetic):
        values = np.concatenate([d[:, 0].ravel() for d in drawn])
    assert len(np.unique(values)) == len(values)


@given(points=st.integers(2, 40), dtype=st.sampled_from([F32, F64]))
@settings(max_examples=25, deadline=None)
def test_recentred_groups_sum_to_zero(points, dtype):
    z = draw(mk.Recentred(points), 20, (3, 2), dtype=dtype).values
    assert np.abs(z.sum(axis=1)).max() < points * rounding(dtype)
    assert np.ptp(z, axis=1).min() > 0


@every_view
def test_antithetic_pairs_are_reflections(view):
    points = draw(mk.Antithetic(), 5_000, (3,), view)
    if view is Normals:
        np.testing.assert_array_equal(points.values[:, 0], -points.values[:, 1])
    else:
        np.testing.assert_array_equal(points.values[:, 0], 1 - points.values[:, 1])
    for K in KERNELS:
        steps = K(1.0).displacements(points)
        np.testing.assert_allclose(steps[:, 0], -steps[:, 1], rtol=rounding(float))


@given(points=st.integers(2, 300), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=40, deadline=None)
def test_a_latin_hypercube_has_one_point_in_every_slice(points, seed):
    u = draw(mk.LatinHypercube(points), 3, (4,), Uniforms, seed=seed).values
    slices = np.sort(np.floor(u * points).astype(int), axis=1)
    np.testing.assert_array_equal(slices, np.broadcast_to(np.arange(points)[:, None], slices.shape))


def test_latin_hypercube_permutations_are_uniform():
    u = draw(mk.LatinHypercube(3), 12_000, (1,), Uniforms).values[..., 0]
    orders = (np.floor(u * 3).astype(int) * [9, 3, 1]).sum(axis=1)
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


@given(log_points=st.integers(1, 9), dimension=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_a_sobol_replicate_hits_every_elementary_interval_of_a_coordinate_once(log_points, dimension):
    n = 1 << log_points
    u = draw(mk.Sobol(n), 3, (dimension,), Uniforms).values
    cells = np.sort(np.floor(u * n).astype(int), axis=1)
    np.testing.assert_array_equal(cells, np.broadcast_to(np.arange(n)[:, None], cells.shape))


def test_a_sobol_replicate_is_a_net_in_its_first_two_coordinates():
    u = draw(mk.Sobol(64), 5, (2,), Uniforms).values
    for columns, rows in [(2, 32), (8, 8), (32, 2)]:
        cells = np.floor(u[..., 0] * columns).astype(int) * rows + np.floor(u[..., 1] * rows).astype(int)
        np.testing.assert_array_equal(np.sort(cells, axis=1), np.broadcast_to(np.arange(64), cells.shape))


def test_sobol_replicates_are_shifted_apart():
    u = draw(mk.Sobol(16), 400, (2,), Uniforms).values[:, 0]
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    assert len(np.unique(u)) == u.size


def test_sobol_refuses_more_coordinates_than_there_are_direction_numbers():
    mk.Sobol().check(21201)
    with pytest.raises(ValueError, match=r"at most 21201 coordinates .* 21202 .* use Recentred"):
        mk.Sobol().check(21202)
    with pytest.raises(ValueError, match="above 1 GiB; use fewer points"):
        mk.Sobol(1 << 20).check(4096)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mk.Recentred(1),
        lambda: mk.LatinHypercube(1),
        lambda: mk.LatinHypercube(65537),
        lambda: mk.Sobol(48),
        lambda: mk.Sobol(1),
        lambda: mk.Sobol(1 << 21),
    ],
)
def test_group_sizes_out_of_range_are_refused_by_name(make):
    with pytest.raises(ValueError, match=r"^(Recentred|LatinHypercube|Sobol)\(\d+\): "):
        make()


def test_open_uniforms_lie_on_a_grid_that_reflection_keeps():
    u = open_uniforms(np.random.default_rng(0), (100_000,))
    assert u.min() > 0
    assert u.max() < 1
    np.testing.assert_array_equal(1 - (1 - u), u)
    np.testing.assert_array_equal(np.modf(u * 2.0**52)[0], 0.5)


@pytest.mark.parametrize("dtype", [float, ">f8", np.longdouble])
def test_every_dtype_of_eight_bytes_or_more_gets_normals_of_double_precision(dtype):
    # Drawn as float32, one value in 2^24 has a zero in its low bits; drawn as float64, in effect none has.
    z = draw(mk.Independent(), 500, (2,), dtype=np.dtype(dtype)).values.astype(float)
    assert (z != z.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("rng", "key"),
    [(7, Key(7, 0)), ((7, 3), Key(7, 3)), (np.uint64(2**64 - 1), Key(2**64 - 1, 0))],
)
def test_what_a_key_is_read_from(rng, key):
    assert Key.of(rng) == key


def test_a_generator_and_none_give_seeds():
    assert Key.of(np.random.default_rng(3)) == Key.of(np.random.default_rng(3))
    generator = np.random.default_rng(3)
    assert Key.of(generator) != Key.of(generator)
    assert Key.of(None) != Key.of(None)


@pytest.mark.parametrize("rng", [1.5, "seed", True, (1, 2, 3), (1, 0.5), -1, 2**64, (0, -1)])
def test_what_is_no_key_is_refused(rng):
    with pytest.raises((TypeError, ValueError), match="rng="):
        Key.of(rng)
