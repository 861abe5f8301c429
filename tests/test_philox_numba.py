"""The random words of compiled code against the published ones and rng.py's, whose words are the definition."""

from __future__ import annotations

import numpy as np
import pytest
from draws import KNOWN_ANSWERS, near
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bdiff_np import rng
from bdiff_np.backends import numba_ops
from bdiff_np.kernels.bernoulli import bernoulli_numba
from bdiff_np.kernels.shared import philox_numba
from bdiff_np.kernels.shared.philox_numba import fill
from bdiff_np.rng import Key

u64 = np.uint64
WORD = 2**64


def blocks(key, first, n):
    """(n, 4) of a key, from its block `first` on; what lies around them stays."""
    room = np.full((n + 2, 4), 77, np.uint32)
    fill(u64(key.seed), u64(key.stream), u64(key.step), u64(first), room[1 : n + 1])
    assert (room[0] == 77).all() and (room[-1] == 77).all()
    return room[1 : n + 1]


def test_words_are_the_published_ones():
    """Random123's known answers, of a single block and at each place of a vector of blocks."""
    for (key, block), four in KNOWN_ANSWERS:
        address = u64(key.seed), u64(key.stream), u64(key.step)
        assert tuple(philox_numba.block(*address, u64(block))) == four
        for before in range(8):  # where no vector begins below 0 or ends beyond 2**64
            if before <= block <= WORD - 9 + before:
                assert tuple(blocks(key, block - before, 8)[before]) == four


def law(lost: int, pi) -> bernoulli_numba.Law:
    """Of a step that loses so much, in units of 2**-32 as pi is; nothing else of it is looked at."""
    pi = np.array(pi, u64, ndmin=1)
    table = np.zeros((2 if len(pi) == 1 else 0, 6))
    return bernoulli_numba.Law(np.array([lost], u64), pi, table, np.zeros((1, 6)), np.zeros((2, 1)), 0.0, False, True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, WORD - 1), stream=st.integers(0, 2**32 - 1), step=st.integers(0, 2**32 - 1),
    first=st.integers(0, WORD - 50) | st.integers(2**32 - 9, 2**32 + 9), n=st.integers(0, 40),
)  # fmt: skip
@example(seed=0, stream=0, step=0, first=0, n=1)
@example(seed=WORD - 1, stream=2**32 - 1, step=2**32 - 1, first=WORD - 50, n=40)
@example(seed=1, stream=rng.Q_NOISE, step=2**31, first=2**32 - 3, n=16)
def test_blocks_are_the_definitions(seed, stream, step, first, n):
    """Any seed, stream, step and block, also across 2**32, in vectors and alone."""
    expected = [rng.philox(seed, stream, step, first + i) for i in range(n)]
    np.testing.assert_array_equal(blocks(Key(seed, stream, step), first, n), np.reshape(expected, (n, 4)))


def test_blocks_do_not_depend_on_how_they_are_split():
    """Slices, each from its first block, joined give the whole, across 2**32."""
    key, first, cuts = Key(5, rng.P_NOISE, 7), 2**32 - 10, [0, 1, 9, 10, 11, 20]
    parts = [blocks(key, first + a, b - a) for a, b in zip(cuts, cuts[1:])]
    np.testing.assert_array_equal(np.concatenate(parts), blocks(key, first, 20))


@pytest.mark.parametrize("D", [1, 4, 15, 16, 17, 20, 63, 64, 65, 784])
def test_draws_are_compared_as_defined(D):
    """x_t, x_T and dropout's mask lie where rng.draws lies below the threshold: at each draw itself, around it, at the
    ends of its byte, 0 and 2**32; with one threshold for a row and with one for each element."""
    key, first, rows = Key(2**64 - 1, rng.Q_NOISE, 2**32 - 1), 2**33 + 1, 3
    draws, one_row = rng.draws(key, rows, D, first), np.zeros(1, np.int64)
    x0 = np.tile(np.arange(D) % 2, (rows, 1)).astype(np.uint8)
    x_t, t = np.empty((rows, D), np.uint8), np.zeros(rows, np.int64)
    for threshold in near(key, rows, D, first):
        for r in range(rows):  # a law of each bit, all of whose signal is lost
            noise, expected = philox_numba.noise(key, 1, -(-D // 16), first + r), draws[r] < threshold[r]
            bernoulli_numba.prior(law(0, threshold[r]), noise, x_t[:1])
            np.testing.assert_array_equal(x_t[0], expected)
            if threshold[r].max() < 2**32:
                bernoulli_numba.q_sample(law(2**32, threshold[r]), one_row, noise, x0[:1], x_t[:1])
                np.testing.assert_array_equal(x_t[0], expected)
        noise = philox_numba.noise(key, rows, -(-D // 16), first)
        for one in {int(threshold[0, d]) for d in (0, D // 2, D - 1)}:
            # the threshold of x_0 = 1, where that of x_0 = 0 is none; then of both
            for lost, pi, other in [(2**32 - one, 0, 0), *([(2**32, one, one)] if one < 2**32 else [])]:
                bernoulli_numba.q_sample(law(lost, pi), t, noise, x0, x_t)
                thresholds = np.where(x0 != 0, u64(one), u64(other))
                np.testing.assert_array_equal(x_t, draws < thresholds)


@pytest.mark.parametrize("D", [1, 16, 17, 784])
def test_masks_are_compared_as_defined(D, monkeypatch):
    """A unit is dropped where its draw lies below the threshold, also at the draw itself and one above it."""
    key, rows = Key(9, rng.DROPOUT + (3 << 8), 4), 5
    draws = rng.draws(key, rows, D)
    for threshold in {int(draws[r, d]) + off for r, d in ((0, 0), (1, D // 2), (4, D - 1)) for off in (0, 1)}:
        monkeypatch.setattr(numba_ops, "drop_threshold", lambda rate: threshold)  # noqa: B023
        mask = numba_ops.keep_mask(key, (rows, D), 0.5, np.float32)
        np.testing.assert_array_equal(mask, np.where(draws < threshold, 0, 2).astype(np.float32))


@pytest.mark.parametrize("D", [1, 8, 9, 20, 64, 784])
@pytest.mark.parametrize("size", [2**-12, 2**-9, 2**-8, 0.01, 0.4, 0.5, 0.6, 1.0])
def test_rows_that_may_change_are_those_with_a_low_draw(D, size):
    """A row may change if a draw is no higher than its bit's limit, and only then: limits around a size, on draws
    themselves, one below them, the largest word; of numbered rows that do not follow one another."""
    key, rows = Key(3, rng.P_NOISE, 77), 300
    draws, generator = rng.draws(key, rows, D, 1000), np.random.default_rng(D)
    limits = (generator.uniform(0.5, 1, (2, D)) * size * (2**32 - 1)).astype(np.uint32)
    low = draws[np.arange(D) % rows, np.arange(D)]
    limits[0, ::3], limits[1, ::4] = low[::3], low[::4] - 1
    x = generator.integers(0, 2, (rows, D)).astype(np.uint8)
    noise, may = philox_numba.noise(key, rows, -(-D // 16), 1000), np.full(rows, 7, np.uint8)
    chosen = np.sort(generator.permutation(rows)[:100])
    noise = noise._replace(words=noise.words[chosen], row=noise.row[chosen])
    bernoulli_numba.may_change(law(1, 1), limits, noise, x[chosen], may[:100])
    expected = (draws <= np.where(x != 0, limits[1], limits[0])).any(axis=1)[chosen]
    np.testing.assert_array_equal(may[:100], expected)
    assert (may[100:] == 7).all()
