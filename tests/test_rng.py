"""Noise: the words against Philox4x32-10 written out in Python's integers, their addresses, and what is made of
them."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from draws import KNOWN_ANSWERS, near

from bdiff_np import rng
from bdiff_np.rng import Key

MASK = 2**32 - 1


def philox(counter, key):
    """Philox4x32-10 from its definition (Salmon et al. 2011): four 32-bit words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & MASK, (first >> 32) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def block(key, number):
    """A block by the address in the documentation."""
    return philox((number & MASK, number >> 32, key.step, key.stream), (key.seed & MASK, key.seed >> 32))


def row_of_words(key, count, row):
    """The words of one row: of D words it has ceil(D / 4) blocks."""
    blocks = math.ceil(count / 4)
    return [w for j in range(blocks) for w in block(key, row * blocks + j)][:count]


def row_of_draws(key, D, row):
    """The draws of one row: byte number d of its ceil(D / 16) blocks, over 24 bits of word number d under the tie's
    mark."""
    blocks = math.ceil(D / 16)
    bytes_ = [w >> 8 * k & 255 for j in range(blocks) for w in block(key, row * blocks + j) for k in range(4)]
    low = row_of_words(key._replace(stream=key.stream + 2**31), D, row)
    return [(byte << 24) + (word >> 8) for byte, word in zip(bytes_, low)]


def test_words_are_the_published_ones():
    """Random123's known answers for philox4x32-10, of the definition here and of rng.py, number by number and in
    arrays."""
    for (key, number), four in KNOWN_ANSWERS:
        assert tuple(block(key, number)) == four == rng.philox(*key, number)
        step, many = np.array([key.step] * 3, np.uint64), np.array([number] * 3, np.uint64)
        for found in (rng.philox(*key, many), rng.philox(key.seed, key.stream, step, many)):
            np.testing.assert_array_equal(np.transpose(found), [four] * 3)


STREAMS = (
    "INIT SHUFFLE TIME Q_NOISE DROPOUT PRIOR P_NOISE EVAL_TIME EVAL_NOISE FLOOR FLOOR_EXCESS FLOOR_STEPS FLOOR_LAST "
    "SPLIT EXAMPLES"
).split()
KEYS = [Key(0, 0, 0), Key(5, rng.Q_NOISE, 17), Key(2**64 - 1, rng.DROPOUT + (3 << 8), 2**32 - 1)]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 20, 65])
@pytest.mark.parametrize("key", KEYS)
def test_words_are_philox_at_the_documented_address(key, count):
    """Rows 0..2, and rows of later slices, whose blocks are beyond 2**32."""
    words = rng.words(key, 3, count)
    assert words.dtype == np.uint32 and words.shape == (3, count)
    np.testing.assert_array_equal(words, [row_of_words(key, count, r) for r in range(3)])
    for first in (1000, 2**32 - 1):
        expected = [row_of_words(key, count, r) for r in (first, first + 1)]
        np.testing.assert_array_equal(rng.words(key, 2, count, first), expected)


@pytest.mark.parametrize("D", [1, 15, 16, 17, 20, 65])
@pytest.mark.parametrize("key", KEYS)
def test_draws_are_a_byte_over_a_word_of_the_ties(key, D):
    """Rows 0..2 and later ones; their top bytes likewise."""
    for first in (0, 2**32 - 1):
        expected = [row_of_draws(key, D, first + r) for r in range(3)]
        found = rng.draws(key, 3, D, first)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(rng.top_bytes(key, 3, D, first), np.array(expected) >> 24)


@pytest.mark.parametrize("rows, D", [(1, 1), (2, 17), (40, 20), (9, 784)])
@pytest.mark.parametrize("key", KEYS)
def test_draws_are_compared_as_defined(key, rows, D):
    """`below` is draws < threshold: on each draw and around it, at the ends of its byte, 0 and 2**32; for integers, for
    floating numbers between them, and for thresholds that rows or elements share."""
    for first in (0, 2**33 + 1):
        draws = rng.draws(key, rows, D, first)
        for threshold in near(key, rows, D, first):
            np.testing.assert_array_equal(rng.below(key, threshold, rows, D, first), draws < threshold)
            for shared in (threshold[0], threshold[:, :1], threshold[0, 0]):
                np.testing.assert_array_equal(rng.below(key, shared, rows, D, first), draws < shared)
            for real in (threshold + 0.5, threshold - 0.5, threshold.astype(np.float64), threshold.astype(np.float32)):
                np.testing.assert_array_equal(rng.below(key, real, rows, D, first), draws < real)


@pytest.mark.filterwarnings("error")
def test_no_draw_is_below_what_is_no_number():
    """As in plain comparisons, without a warning."""
    assert not rng.below(Key(0, 1, 2), np.full((30, 5), np.nan, np.float32), 30, 5).any()


def test_a_step_has_32_bits():
    """A larger one has no words, rather than those of another."""
    for step in (-1, 2**32):
        with pytest.raises(ValueError, match="less than 2"):
            rng.words(Key(0, rng.TIME, step), 1, 1)


def test_large_arrays_are_their_parts():
    """More blocks than are made together: the same as by themselves."""
    key, n = Key(1, rng.Q_NOISE, 3), 4 * (2 * rng.TOGETHER + 5)
    whole = rng.words(key, 1, n)[0]
    for at in (0, rng.TOGETHER - 1, rng.TOGETHER, 2 * rng.TOGETHER, n // 4 - 1):
        np.testing.assert_array_equal(whole[4 * at : 4 * at + 4], block(key, at))


@pytest.mark.parametrize("cuts", [[0, 13], [0, 1, 13], [0, 4, 5, 6, 12, 13]])
def test_words_do_not_depend_on_how_rows_are_split(cuts):
    """Slices, each from its first row, joined give the whole."""
    key = Key(1, rng.PRIOR, 2)
    whole = rng.words(key, 13, 11)
    np.testing.assert_array_equal(np.concatenate([rng.words(key, b - a, 11, a) for a, b in zip(cuts, cuts[1:])]), whole)


def test_no_two_addresses_share_a_block():
    """Every seed, stream, level of ties, step and row has blocks of its own: two seeds, three steps, 8 rows of 4 blocks
    for each stream, all different."""
    streams = [value for name, value in vars(rng).items() if name.isupper() and name in STREAMS]
    assert sorted(streams) == list(range(len(STREAMS))) and max(streams) < 256  # dropout layers go on above 255
    words = [
        rng.words(Key(seed, stream | level, step), 8, 16).reshape(-1, 4)
        for seed in (0, 1)
        for stream in streams
        for level in (0, rng.TIE)
        for step in (0, 1, 2)
    ]
    assert len(np.unique(np.concatenate(words), axis=0)) == 2 * len(streams) * 2 * 3 * 8 * 4


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
    low = row_of_words(key, 2 * 97, 0)
    wide = [low[2 * i] + (low[2 * i + 1] << 32) for i in range(97)]
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


@pytest.mark.parametrize("n", [1, 4, 7, 256, 257])
def test_permutations_at_once_are_those_one_by_one(n):
    """Of steps up to the last there is."""
    for first in (0, 2**32 - 3):
        expected = [rng.permutation(Key(6, rng.SHUFFLE, first + k), n) for k in range(3)]
        np.testing.assert_array_equal(rng.permutations(6, rng.SHUFFLE, first, 3, n), expected)


def test_a_sequence_goes_through_the_words_of_its_key():
    """Numbers in [0, 1), whole numbers and orders are made of the next words of 64 bits; a block that is begun is used
    up."""
    key, sequence = Key(4, rng.FLOOR, 2), rng.Sequence(Key(4, rng.FLOOR, 2))
    low = row_of_words(key, 60, 0)
    wide = [low[2 * i] + (low[2 * i + 1] << 32) for i in range(30)]
    assert sequence.words(3).tolist() == wide[:3]
    np.testing.assert_array_equal(sequence.random((2, 2)), np.reshape([(w >> 11) / 2**53 for w in wide[4:8]], (2, 2)))
    assert sequence.integers(10, 5).tolist() == [10 * (w >> 11) >> 53 for w in wide[8:13]]
    assert sequence.permutation(9).tolist() == sorted(range(9), key=lambda i: wide[14 + i])
    assert sequence.random().shape == ()


def test_a_generator_of_numpys_is_one_keys():
    """What a user's network draws its first weights with: another one for each key, and the same again."""
    first, again, other = (rng.generator(Key(seed, rng.INIT, 0)).normal(size=9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


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
