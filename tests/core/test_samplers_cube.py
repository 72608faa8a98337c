"""Permutations of Latin hypercubes, generators of lattices, and normals of single precision from the cube."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals, Uniforms
from mollikit.samplers.latin_hypercube import _affine, _primitive_polynomial, _sorted
from mollikit.samplers.lattice import _generator
from mollikit.samplers.quantiles import single_normals

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
FALSE_ALARM = 1e-3


def draw(sampler, groups, shape, view, dtype):
    return Key(5).groups(sampler, 0, groups, shape, dtype, view)


def assert_pairs_of_slices_are_uniform(slices):
    """Any two points of a coordinate fall in each ordered pair of slices equally often."""
    n = slices.shape[1]
    cells = ~np.eye(n, dtype=bool)
    for i, j in [(0, 1), (1, 0), (1, 2), (n - 2, n - 1), (0, n - 1)]:
        counts = np.zeros((n, n))
        np.add.at(counts, (slices[:, i], slices[:, j]), 1)
        assert counts[~cells].sum() == 0
        assert stats.chisquare(counts[cells]).pvalue > FALSE_ALARM / 5


@pytest.mark.parametrize("n", [4, 8, 16])
@pytest.mark.parametrize("permutations", [_affine, _sorted])
def test_every_pair_of_slices_is_as_likely(n, permutations):
    size = (50_000, n) if permutations is _sorted else (50_000, 1)
    rng = np.random.default_rng(n)
    rows = permutations(rng, size) if permutations is _sorted else permutations(rng, n, size)
    assert_pairs_of_slices_are_uniform(rows)


def test_mere_rotations_fail_that_check():
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 8, (50_000, 1)) + np.arange(8)) % 8
    with pytest.raises(AssertionError):
        assert_pairs_of_slices_are_uniform(rows)


@pytest.mark.parametrize("k", range(1, 13))
def test_x_runs_through_the_whole_field(k):
    n, element, seen = 1 << k, 1, set()
    polynomial = _primitive_polynomial(n)
    for _ in range(n - 1):
        seen.add(element)
        element <<= 1
        element ^= polynomial if element & n else 0
    assert seen == set(range(1, n))


@pytest.mark.parametrize("n", [2, 1024, 65536])
def test_affine_permutations_are_permutations(n):
    slices = _affine(np.random.default_rng(1), n, (3, 1, 2))
    np.testing.assert_array_equal(np.sort(slices, axis=1)[0, :, 0], np.arange(n))
    assert len(np.unique(slices)) == n


def nearer_quantile(u):
    """The quantile from the nearer end, whose distance is exact."""
    return np.copysign(ndtri(0.5 - np.abs(u - 0.5)), u - 0.5)


@given(st.integers(0, 2**52 - 1))
@example(0)
@example(2**52 - 1)
@example(2**51)
@settings(max_examples=300)
def test_single_normals_are_the_quantile_on_the_whole_grid(k):
    u = np.array([(k + 0.5) * 2.0**-52])
    z = single_normals(u)
    assert z.dtype == F32
    # Within 2^-20 of the middle ndtri itself loses digits: the quantile there is sqrt(2 pi) v.
    truth = nearer_quantile(u) if abs(u[0] - 0.5) > 2.0**-20 else np.sqrt(2 * np.pi) * (u - 0.5)
    np.testing.assert_allclose(z, truth, rtol=8 * np.finfo(F32).eps)
    np.testing.assert_array_equal(single_normals(1 - u), -z)


@given(st.floats(1, 52), st.booleans())
@settings(max_examples=200)
def test_single_normals_keep_their_digits_in_both_tails(bits, upper):
    tail = (np.floor(2.0 ** (52 - bits)) + 0.5) * 2.0**-52
    u = np.array([1 - tail if upper else tail])
    np.testing.assert_allclose(single_normals(u), nearer_quantile(u), rtol=8 * np.finfo(F32).eps, atol=1e-9)


def test_single_normals_of_large_arrays_are_those_of_their_parts():
    u = np.random.default_rng(0).random((5, 7, 1000)) * 0.98 + 0.01
    np.testing.assert_array_equal(single_normals(u)[3, 2], single_normals(u[3, 2]))


@pytest.mark.parametrize(
    "sampler",
    [mk.Sobol(16), mk.LatinHypercube(16), mk.LatinHypercube(5), mk.Halton(9), mk.Lattice(64)],
    ids=repr,
)
def test_views_of_the_cube_are_of_the_same_points(sampler):
    cube = draw(sampler, 3, (2, 4), Uniforms, F32)
    normals = draw(sampler, 3, (2, 4), Normals, F32)
    assert isinstance(cube, Uniforms)
    assert isinstance(normals, Normals)
    np.testing.assert_allclose(normals.values, ndtri(cube.values), rtol=1e-6, atol=1e-6)


@given(log_points=st.integers(3, 12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_lattice_has_one_point_in_every_slice_and_no_two_coordinates_alike(log_points, data):
    n = 1 << log_points
    z = _generator(n, data.draw(st.integers(1, min(n // 4, 40)))).astype(int)
    assert (z % 2 == 1).all()
    assert len(set(np.minimum(z, n - z))) == len(z)


def squared_error(z, n):
    """What the generator was chosen by, as its definition says."""
    x = np.arange(n)[:, None] * np.asarray(z) % n / n
    return -1 + np.prod(1 + 2 * np.pi**2 * (x * x - x + 1 / 6) / len(z), axis=1).mean()


@pytest.mark.parametrize("n", [16, 64, 256])
def test_a_generator_of_two_coordinates_is_the_best_of_all(n):
    others = [squared_error([1, z], n) for z in range(3, n // 2, 2)]
    assert squared_error(_generator(n, 2).astype(int), n) == pytest.approx(min(others), rel=1e-9)


def test_a_generator_of_many_coordinates_beats_random_ones():
    rng, n, d = np.random.default_rng(0), 256, 10
    others = [squared_error(rng.choice(np.arange(1, n // 2, 2), d, replace=False), n) for _ in range(200)]
    assert squared_error(_generator(n, d).astype(int), n) < min(others)


@pytest.mark.parametrize("sampler", [mk.Lattice(16), mk.Halton(16), mk.Sobol(16)], ids=repr)
def test_a_replicates_points_are_uniform_and_replicates_apart(sampler):
    u = draw(sampler, 3000, (3,), Uniforms, F64).values
    for position in (0, 1, 15):
        for coordinate in range(3):
            pvalue = stats.kstest(u[:, position, coordinate], "uniform").pvalue
            assert pvalue > FALSE_ALARM / 9
    means = u.mean(axis=1)
    assert np.abs(np.corrcoef(means[:-1, 0], means[1:, 0])[0, 1]) < 4 / np.sqrt(3000)
