"""Noise: the words against Philox4x64-10 written out in Python's integers, their addresses, and what is made of
them."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from bdiff_np import rng
from bdiff_np.rng import Key

MASK = 2**64 - 1


def philox(counter, key):
    """Philox4x64-10 from its definition (Salmon et al. 2011): four 64-bit words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(second >> 64) ^ c[1] ^ k[0], second & MASK, (first >> 64) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def row_of_words(key, count, row):
    """The words of one row from the address in the documentation: block j is at (1 + row * blocks + j, step, 0, 0)."""
    blocks = math.ceil(count / 8)
    wide = [w for j in range(blocks) for w in philox((1 + row * blocks + j, key.step, 0, 0), (key.seed, key.stream))]
    return [half for w in wide for half in (w & 0xFFFFFFFF, w >> 32)][:count]


def test_definition_is_the_published_one():
    """The known answers of Random123 for philox4x64-10: all bits 0, and all bits 1."""
    assert philox((0, 0, 0, 0), (0, 0)) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    assert philox((MASK,) * 4, (MASK,) * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20, 65])
@pytest.mark.parametrize("key", [Key(0, 0, 0), Key(5, rng.Q_NOISE, 17), Key(2**63 - 1, rng.DROPOUT + (3 << 8), 2**40)])
def test_words_are_philox_at_the_documented_address(key, count):
    """Rows 0..2, and rows 1000 and 1001 of a later slice, low half of each 64-bit word first."""
    np.testing.assert_array_equal(rng.words(key, 3, count), [row_of_words(key, count, r) for r in range(3)])
    np.testing.assert_array_equal(rng.words(key, 2, count, 1000), [row_of_words(key, count, r) for r in (1000, 1001)])


def test_words_are_numpys_own_sequence():
    """numpy.random.Philox, set to the counter before the first block, gives the words in order."""
    key = Key(3, rng.P_NOISE, 9)
    raw = np.random.Philox(key=[3, rng.P_NOISE], counter=[0, 9, 0, 0]).random_raw(4 * 3 * 4)
    halves = np.stack([raw & 0xFFFFFFFF, raw >> np.uint64(32)], 1).reshape(4, 24)
    words = rng.words(key, 4, 20)
    assert words.dtype == np.uint32 and words.shape == (4, 20)
    np.testing.assert_array_equal(words, halves[:, :20])


@pytest.mark.parametrize("cuts", [[0, 13], [0, 1, 13], [0, 4, 5, 6, 12, 13]])
def test_words_do_not_depend_on_how_rows_are_split(cuts):
    """Slices, each from its first row, joined give the whole."""
    key = Key(1, rng.PRIOR, 2)
    whole = rng.words(key, 13, 11)
    np.testing.assert_array_equal(np.concatenate([rng.words(key, b - a, 11, a) for a, b in zip(cuts, cuts[1:])]), whole)


def test_no_two_addresses_share_a_word():
    """Every seed, stream, step and row has words of its own: 9 streams, 3 steps, 2 seeds, 8 rows of 4 words of 64 bits,
    all different."""
    streams = [
        rng.INIT,
        rng.SHUFFLE,
        rng.TIME,
        rng.Q_NOISE,
        rng.DROPOUT,
        rng.PRIOR,
        rng.P_NOISE,
        rng.EVAL_TIME,
        rng.EVAL_NOISE,
    ]
    assert len(set(streams)) == 9 and max(streams) < 256  # dropout layers take streams from DROPOUT + 256 upwards
    words = [
        rng.words(Key(seed, stream, step), 8, 8).view(np.uint64)
        for seed in (0, 1)
        for stream in streams
        for step in (0, 1, 2)
    ]
    assert len(np.unique(np.concatenate(words))) == 2 * 9 * 3 * 8 * 4


# Steps of the chain
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, T", [(1, 1), (1, 2000), (7, 3), (8, 2000), (20, 10), (64, 2000), (2000, 2000), (33, 100_000)]
)
def test_stratified_steps_are_their_formula(n, T):
    """t_i = 1 + floor(T (u + i) / n) in exact fractions, u = word / 2**32."""
    for step in range(20):
        key = Key(4, rng.TIME, step)
        u = Fraction(row_of_words(key, 1, 0)[0], 2**32)
        found = rng.stratified_t(key, n, T)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, [1 + math.floor(T * (u + i) / n) for i in range(n)])


@pytest.mark.parametrize("n, T", [(7, 3), (20, 10), (64, 2000), (2000, 2000), (4096, 100)])
def test_stratified_steps_cover_the_chain_evenly(n, T):
    """All lie in 1..T, each in its stratum, and no step is met more than once oftener than another."""
    for step in range(20):
        t = rng.stratified_t(Key(0, rng.TIME, step), n, T)
        i = np.arange(n)
        assert np.all((i * T // n + 1 <= t) & (t <= ((i + 1) * T - 1) // n + 1))
        counts = np.bincount(t, minlength=T + 1)[1:]
        assert len(counts) == T and counts.min() >= n // T and counts.max() <= -(-n // T)


@pytest.mark.parametrize("n", [1, 3, 16])
def test_stratified_steps_are_uniform(n):
    """Over 8000 keys the steps of a batch are uniform on 1..10 together: no count is 4 standard errors away (those of
    single draws)."""
    keys = 8000
    counts = np.bincount(
        np.concatenate([rng.stratified_t(Key(7, rng.TIME, k), n, 10) for k in range(keys)]), minlength=11
    )[1:]
    assert np.all(np.abs(counts - keys * n / 10) < 4 * (keys * n * 0.09) ** 0.5)


# Orders and normal numbers
# ----------------------------------------------------------------------------------------------------------------


def test_permutation_orders_the_words():
    """The k-th place goes to the k-th smallest 64-bit word of the key, so that every index appears once."""
    key = Key(2, rng.SHUFFLE, 5)
    wide = [w for j in range(25) for w in philox((1 + j, 5, 0, 0), (2, rng.SHUFFLE))][:97]
    order = rng.permutation(key, 97)
    assert order.tolist() == sorted(range(97), key=lambda i: wide[i])
    assert sorted(order.tolist()) == list(range(97))
    assert not np.array_equal(order, rng.permutation(Key(2, rng.SHUFFLE, 6), 97))


def test_permutations_are_uniform():
    """Each of the 24 orders of 4 things comes up in 1/24 of 4800 keys: Pearson's statistic, 23 degrees of freedom,
    below 5 sigma."""
    counts = Counter(tuple(rng.permutation(Key(0, rng.SHUFFLE, k), 4).tolist()) for k in range(4800))
    assert len(counts) == 24
    assert sum((c - 200) ** 2 / 200 for c in counts.values()) < 23 + 5 * 46**0.5


def test_normal_numbers_are_box_muller():
    """sqrt(-2 log(1 - u)) cos(2 pi w) of the first two words of each row, in the shape that was asked for."""
    key = Key(1, rng.INIT, 64)
    expected = []
    for row in range(6):
        u, w = (word / 2**32 for word in row_of_words(key, 2, row))
        expected.append(math.sqrt(-2 * math.log1p(-u)) * math.cos(2 * math.pi * w))
    np.testing.assert_allclose(rng.normal(key, (2, 3)), np.reshape(expected, (2, 3)), rtol=1e-12)


def test_normal_numbers_are_normal():
    """Four moments and the largest gap to the normal distribution function, each within 4 standard errors, of 200,000
    numbers."""
    n = 200_000
    z = rng.normal(Key(0, rng.INIT, 0), (n,))
    assert np.isfinite(z).all()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - expected) < 4 * (variance / n) ** 0.5
    assert abs((z[:-1] * z[1:]).mean()) < 4 / n**0.5
    grid = np.linspace(-3, 3, 61)
    law = np.array([0.5 * (1 + math.erf(g / 2**0.5)) for g in grid])
    found = np.searchsorted(np.sort(z), grid) / n
    assert np.all(np.abs(found - law) < 4 * np.sqrt(law * (1 - law) / n))
