"""The numbers that a resident block draws: the generator, the samplers' ties, the kernels' tables."""

from __future__ import annotations

import numpy as np
import pytest
from mollikit_onnx.resident.draws import displaced, table
from mollikit_onnx.resident.generator import circle, key_of, words
from scipy import stats

import mollikit as mk
from mollikit.engine.streams import Key
from mollikit.pointsets import Normals
from mollikit.testing import rounding
from tests.onnx.resident_graphs import (
    CPU,
    computed,
    every_provider,
    every_sampler,
    groups_of_normals,
)

KERNELS = (
    mk.Bump,
    mk.Cauchy,
    mk.Epanechnikov,
    mk.HyperbolicSecant,
    mk.Laplace,
    mk.Logistic,
    mk.StudentT,
    mk.Triangular,
    mk.Uniform,
)


def squares(counters, key):
    """Widynski's generator of 32 bits in arrays."""
    turn = np.uint64(32)
    x = y = counters * key
    z = y + key
    for added in (y, z, y):
        x = x * x + added
        x = (x >> turn) | (x << turn)
    return (x * x + z) >> turn


def drawn_words(key, count=1 << 16, first=0, provider=CPU):
    counters = np.uint64(first) + np.arange(count, dtype=np.uint64)
    return computed(words, provider, counters=counters, key=np.array([key], np.uint64))


@every_provider
@pytest.mark.parametrize("first", [0, (1 << 64) - 5])
def test_the_graphs_numbers_are_the_generators(provider, first):
    key = key_of(Key(3, 1))
    counters = np.uint64(first) + np.arange(1000, dtype=np.uint64)
    np.testing.assert_array_equal(drawn_words(key, 1000, first, provider), squares(counters, np.uint64(key)))


def test_keys_are_as_the_generators_author_asks():
    keys = [key_of(Key(seed, item)) for seed in range(40) for item in range(40)]
    assert len(set(keys)) == len(keys)
    for key in keys:
        digits = f"{key:016x}"
        assert len(set(digits[:8])) == len(set(digits[8:])) == 8
        assert "0" not in digits
        assert key % 2 == 1
    counts = np.bincount([key >> 60 for key in keys], minlength=16)[1:]
    assert stats.chisquare(counts).pvalue > 1e-4


def correlation_of(a, b):
    """Largest correlation of two streams' bits, in standard errors of independent fair ones."""
    places = np.arange(32, dtype=np.uint64)
    first, second = (((w[:, None] >> places) & np.uint64(1)).astype(float) - 0.5 for w in (a, b))
    return np.abs(4 * first.T @ second).max() / np.sqrt(len(a))


def test_neighbouring_counters_keys_and_bits_are_not_correlated():
    bound = stats.norm.isf(1e-4 / 2 / 32**2)
    one = drawn_words(key_of(Key(0)), (1 << 16) + 8)
    n = 1 << 16
    for lag in (1, 2, 8):
        assert correlation_of(one[:n], one[lag:][:n]) < bound
    for other in (Key(1), Key(0, 1), Key(1, 1), Key(1 << 63)):
        assert correlation_of(one[:n], drawn_words(key_of(other), n)) < bound
    places = np.arange(32, dtype=np.uint64)
    assert np.abs(((one[:, None] >> places) & np.uint64(1)).mean(0) - 0.5).max() < bound / 2 / np.sqrt(n)
    counters = np.arange(n + 8, dtype=np.uint64)
    assert correlation_of(counters[:n], counters[8:]) > bound, "the counters themselves are"
    assert correlation_of(one[:n], one[:n]) > bound


@every_provider
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sines_and_cosines_are_good_to_rounding(provider, dtype):
    t = np.linspace(-1, 1, 4097).astype(dtype)
    found = computed(lambda t: list(circle(t)), provider, t=t)
    angle, allowed = np.pi * t.astype(float), 8 * float(np.finfo(dtype).eps)
    for part, truth in zip(found, (np.cos(angle), np.sin(angle)), strict=True):
        np.testing.assert_allclose(part, truth, rtol=0, atol=allowed)


@every_provider
@every_sampler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_have_the_samplers_law_and_depend_on_their_number_alone(provider, sampler, dtype):
    def drawn(start, stop, **address):
        return groups_of_normals(sampler, start, stop, 41, dtype=dtype, provider=provider, **address)

    whole, size = drawn(0, 300), sampler.group_size(41)
    assert whole.shape == (300, size, 41)
    assert whole.dtype == dtype
    # Their words are the same; a provider's logarithms may round by the place in an array.
    slack = 16 * float(np.finfo(dtype).eps)
    for start, stop in ((0, 1), (17, 140), (299, 300)):
        np.testing.assert_allclose(drawn(start, stop), whole[start:stop], rtol=0, atol=slack)
    for member in range(size):
        z = whole[:, member].ravel()
        assert stats.kstest(z, "norm").pvalue > 1e-4
        assert stats.kstest(z**2, "chi2", args=(1,)).pvalue > 1e-4
        assert stats.kstest(z, stats.norm(0, 1.1).cdf).pvalue < 1e-4
    halves = whole[:, 0, :40].reshape(300, 2, 20)  # the two numbers of a pair
    assert np.abs(np.sum(halves[:, 0] * halves[:, 1]) / np.sqrt(halves[:, 0].size)) < 4.5
    if size > 1:
        assert np.abs(whole.sum(1)).max() < 1e-5
    assert not set(whole.ravel()) & set(drawn(0, 300, seed=4).ravel()[:100])
    assert not set(whole.ravel()) & set(drawn(0, 300, item=1).ravel()[:100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_the_kernels_are_those_of_the_host(kernel, dtype):
    half = np.linspace(1e-3, 6.9, 201).astype(dtype)
    z = np.concatenate([half, -half])
    ours = computed(displaced, z=z, coefficients=table(kernel(1.0)).astype(dtype))
    host = kernel(1.0).displacements(Normals(z.astype(float)))
    # In z, by the slope: what the host's own inverse CDFs are good to in the tails, and rounding.
    slope = np.abs(kernel(1.0).displacements(Normals(np.abs(z) + 1e-3)) - np.abs(host)) / 1e-3
    allowed = rounding(dtype) * np.abs(host) + 1e-9 * slope / stats.norm.pdf(z)
    assert (np.abs(ours - host) <= allowed + 1e-15).all()
    np.testing.assert_array_equal(ours[: len(half)], -ours[len(half) :])
    # Near zero, where the host's quantiles of p = 1/2 - 4e-9 have lost their digits, draws are linear.
    small = computed(
        displaced, z=np.array([1e-8, 1e-3], dtype), coefficients=table(kernel(1.0)).astype(dtype)
    )
    assert 0.99 < small[0] / 1e-8 / (small[1] / 1e-3) < 1.01
