"""Halton, lattices and the samplers of orthogonal frames: their laws, their structure, their refusals."""

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
from mollikit.samplers.frames import haar_frames
from mollikit.testing import rounding
from tests.core.closed_forms import Cubic, Linear, Recording, waves

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
GRID = (2, 5)
FALSE_ALARM = 1e-3  # of one test, by Bonferroni over positions and coordinates

SAMPLERS = [
    mk.Halton(12),
    mk.Lattice(64),
    mk.Orthogonal(3),
    mk.LocalBlocks(8, tile=(2, 2)),
    mk.LocalBlocks(6, tile=(1, 5)),
    mk.WhitenedBlocks(6, tile=(2, 2)),
    mk.WhitenedBlocks(6, tile=(2, 1)),
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


@dataclass(frozen=True)
class OldRadii(mk.WhitenedBlocks):
    """A control: rows of a whitened frame with the lengths they came with."""

    def _points_of_tiles(self, rng, size, count, dtype):
        rows = super()._points_of_tiles(rng, size, count, dtype)
        frame = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return frame * np.sqrt(size)


def draw(sampler, groups, shape=GRID, view=Normals, dtype=F64, start=0, seed=0):
    return Key(seed).groups(sampler, start, groups, shape, dtype, view)


def normals(sampler, groups, **options):
    return mk.Gaussian(1.0).displacements(draw(sampler, groups, **options))


def assert_each_coordinate_is_normal(sampler, groups=3000):
    z = normals(sampler, groups).reshape(groups, sampler.group_size(10), -1)
    pvalues = [stats.kstest(z[:, i, j], "norm").pvalue for i in range(z.shape[1]) for j in range(z.shape[2])]
    assert min(pvalues) > FALSE_ALARM / len(pvalues)


@every_sampler
def test_every_coordinate_of_every_position_is_standard_normal(sampler):
    assert_each_coordinate_is_normal(sampler)


def test_whitened_rows_that_keep_their_lengths_fail_that_check():
    with pytest.raises(AssertionError):
        assert_each_coordinate_is_normal(OldRadii(6, tile=(2, 2)))


@every_sampler
def test_a_point_has_independent_coordinates_and_the_norm_of_a_normal(sampler):
    z = normals(sampler, 4000)[:, 0].reshape(4000, -1)
    assert stats.kstest(np.square(z).sum(1), stats.chi2(z.shape[1]).cdf).pvalue > FALSE_ALARM
    correlations = np.corrcoef(z.T)[np.triu_indices(z.shape[1], 1)]
    # 45 correlations of standard error 1 / sqrt(n): 4.5 of them, 3e-4 in all.
    assert np.abs(correlations).max() < 4.5 / np.sqrt(len(z))


@every_sampler
def test_uniform_views_are_inside_the_open_cube(sampler):
    points = draw(sampler, 50, view=Uniforms)
    if isinstance(points, Uniforms):
        assert points.values.min() > 0
        assert points.values.max() < 1


@given(
    sampler=st.sampled_from(SAMPLERS),
    shape=st.sampled_from([(2, 5), (3, 4), (2, 2, 3)]),
    start=st.integers(0, 30),
    count=st.integers(1, 30),
    dtype=st.sampled_from([F32, F64]),
)
@settings(max_examples=40, deadline=None)
def test_a_groups_points_depend_on_its_number_alone(sampler, shape, start, count, dtype):
    ranged = draw(sampler, start + count, shape=shape, dtype=dtype, start=start)
    whole = draw(sampler, start + count + 2, shape=shape, dtype=dtype)
    assert ranged.values.shape == (count, sampler.group_size(int(np.prod(shape))), *shape)
    np.testing.assert_array_equal(ranged.values, whole.values[start : start + count])


@every_sampler
def test_normals_stay_in_single_precision(sampler):
    assert draw(sampler, 4, dtype=F32).values.dtype == F32


def assert_agrees_with_the_closed_form(sampler, form, x):
    kernel = mk.Gaussian(0.4)
    estimate = mk.Pathwise(kernel, sampler).estimate(form, x, budget=mk.Evaluations(1 << 14), rng=2)
    truth = np.broadcast_to(form.smoothed_gradient(kernel, x, np.full(x.shape, 0.4)), x.shape)
    bound = stats.t.isf(1e-4 / 2 / truth.size, estimate.degrees_of_freedom)
    slack = rounding(float) * np.abs(truth).max()
    assert (np.abs(estimate.gradient - truth) < bound * estimate.standard_error + slack).all()


@every_sampler
def test_estimates_on_a_grid_agree_with_the_closed_form(sampler):
    x = np.random.default_rng(3).standard_normal((2, 3))
    assert_agrees_with_the_closed_form(sampler, Cubic(), x)


@pytest.mark.parametrize("sampler", SAMPLERS[:3], ids=repr)
def test_estimates_of_waves_agree_with_the_closed_form(sampler):
    assert_agrees_with_the_closed_form(sampler, waves(), np.random.default_rng(3).standard_normal(6))


@given(st.integers(1, 6), st.integers(0, 5), st.sampled_from([F32, F64]))
@settings(max_examples=30, deadline=None)
def test_frames_are_orthonormal(vectors, more, dtype):
    frames = haar_frames(np.random.default_rng(0), vectors, vectors + more, 7, dtype)
    gram = np.einsum("idt,jdt->tij", frames, frames)
    np.testing.assert_allclose(
        gram, np.broadcast_to(np.eye(vectors), gram.shape), atol=64 * np.finfo(dtype).eps
    )


def test_frames_are_haar():
    # The entry of a Haar frame in d = 3 is uniform on (-1, 1) (Archimedes), whichever vector it is of.
    frames = haar_frames(np.random.default_rng(1), 3, 3, 20_000, F64)
    pvalues = [
        stats.kstest(frames[i, j], stats.uniform(-1, 2).cdf).pvalue for i in range(3) for j in range(3)
    ]
    assert min(pvalues) > FALSE_ALARM / 9


@pytest.mark.parametrize("sampler", [mk.Orthogonal(3), mk.LocalBlocks(8, tile=(2, 2))], ids=repr)
def test_pairs_are_exact_reflections(sampler):
    z = draw(sampler, 9).values
    half = z.shape[1] // 2
    np.testing.assert_array_equal(z[:, half:], -z[:, :half])


def test_directions_are_orthogonal():
    z = draw(mk.Orthogonal(4), 5, shape=(6,)).values[:, :4]
    gram = np.einsum("gid,gjd->gij", z, z)
    off = gram[:, ~np.eye(4, dtype=bool)]
    assert np.abs(off).max() < 1e-13 * np.abs(gram).max()


@pytest.mark.parametrize("sampler", [mk.Halton(256), mk.Lattice(256)], ids=repr)
def test_low_discrepancy_points_beat_independent_ones_by_far(sampler):
    form, kernel, x = waves(), mk.Gaussian(0.4), np.zeros(6)
    budget = mk.Evaluations(4096)
    error = mk.Pathwise(kernel, sampler).estimate(form, x, budget=budget, rng=0).standard_error
    plain = mk.Pathwise(kernel, mk.Independent()).estimate(form, x, budget=budget, rng=0).standard_error
    assert np.square(plain).sum() > 4 * np.square(error).sum()


@pytest.mark.parametrize(
    ("sampler", "shape", "message"),
    [
        (mk.Halton(), (33,), "Halton serves at most 32 coordinates"),
        (mk.Lattice(64), (17,), r"take Lattice\(128\)"),
        (mk.Orthogonal(5), (4,), r"use Orthogonal\(4\) or fewer"),
        (mk.LocalBlocks(8), (12,), "an input without a grid"),
        (mk.WhitenedBlocks(8), (12,), "an input without a grid"),
        (mk.LocalBlocks(8, tile=(2, 2, 2)), (4, 4), "more axes than the input's grid"),
        (mk.WhitenedBlocks(4, tile=(2, 2)), (4, 4), "at least 5 points"),
    ],
)
def test_refusals_name_the_mend_and_come_before_the_model_is_called(sampler, shape, message):
    oracle = Recording(Linear(np.ones(shape)))
    with pytest.raises(ValueError, match=message):
        mk.Pathwise(mk.Gaussian(0.1), sampler).estimate(oracle, np.ones(shape), budget=mk.Evaluations(4096))
    assert not oracle.batches


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mk.Halton(1), "2 to 65536"),
        (lambda: mk.Lattice(100), "power of two"),
        (lambda: mk.Orthogonal(0), "at least one direction"),
        (lambda: mk.LocalBlocks(7), "even number"),
        (lambda: mk.LocalBlocks(8, tile=(0,)), "at least one coordinate"),
        (lambda: mk.WhitenedBlocks(2), "at least 3 points"),
    ],
)
def test_impossible_samplers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
