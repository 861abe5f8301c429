"""Noise: which random words belong to (seed, stream, step, row).

Every random number of training, sampling and evaluation is a word of Philox4x64-10 (Salmon et al. 2011) as
numpy.random.Philox produces it, found by its address and not by the order of the draws:

    key     = (seed, stream)                  stream: what the noise is for, one of the constants below
    counter = (1 + row * blocks + j, step, 0, 0)   block j of a row; NumPy counts up before it draws, hence the 1

A block is four 64-bit words, read as eight 32-bit words, low half first; a row of D words owns blocks = ceil(D / 8) of
them. So a row draws the same words whatever the batch, slice, thread or rank that holds it, and to resume a run takes
its seed and its step, nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # of Philox4x64: the multipliers of a round,
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # and what is added to the key after each

(
    INIT,
    SHUFFLE,
    TIME,
    Q_NOISE,
    DROPOUT,
    PRIOR,
    P_NOISE,
    EVAL_TIME,
    EVAL_NOISE,
    FLOOR,
    FLOOR_EXCESS,
    FLOOR_STEPS,
    FLOOR_LAST,
    SPLIT,
) = range(14)


class Key(NamedTuple):
    """The part of an address that a whole batch shares.

    seed : int, 0 .. 2**63 - 1
    stream : int, what the noise is for (a constant of this module)
    step : int, an optimiser step, a step t of the chain or a pass of an evaluation, as the stream has it
    """

    seed: int
    stream: int
    step: int


def words(key: Key, rows: int, count: int, first_row: int = 0) -> np.ndarray:
    """Random words of rows first_row .. first_row + rows - 1.

    Returns
    -------
    (rows, count) uint32, uniform over all 2**32 values. `count` is part of the address: D words a row fix where a row's
    blocks begin.
    """
    blocks = -(-count // 8)
    raw = philox(key, first_row * blocks).random_raw(rows * blocks * 4)
    return raw.astype("<u8", copy=False).view("<u4").reshape(rows, blocks * 8)[:, :count]


def philox(key: Key, block: int = 0) -> np.random.Philox:
    """The generator that stands before block `block` of a key."""
    return np.random.Philox(
        key=np.array((key.seed, key.stream), np.uint64), counter=np.array((block, key.step, 0, 0), np.uint64)
    )


def permutation(key: Key, n: int) -> np.ndarray:
    """A uniformly random order of 0 .. n-1, (n,) int64: the order of n 64-bit words, which does not change with NumPy's
    version."""
    return np.argsort(philox(key).random_raw(n), kind="stable")


def permutations(seed: int, stream: int, first: int, count: int, n: int) -> np.ndarray:
    """`permutation` for keys of steps first .. first + count - 1, (count, n) int64: for short orders all at once,
    without a generator for each."""
    if n > 256:
        return np.stack([permutation(Key(seed, stream, step), n) for step in range(first, first + count)])
    blocks = -(-n // 4)
    steps, block = (
        np.repeat(np.arange(first, first + count, dtype=np.uint64), blocks),
        np.tile(np.arange(blocks, dtype=np.uint64), count),
    )
    words = np.stack(_philox(seed, stream, steps, block), axis=1).reshape(count, 4 * blocks)
    return np.argsort(words[:, :n], axis=1, kind="stable")


def _philox(seed: int, stream: int, step: np.ndarray, block: np.ndarray) -> list[np.ndarray]:
    """Philox4x64-10 written out for arrays of addresses: the four words of each block, uint64. The same as `philox`
    draws."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)

    def product(m: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Upper and lower 64-bit half of m x, from four 32-bit products."""
        a, b, c, d = np.uint64(m >> 32), np.uint64(m & 0xFFFFFFFF), x >> half, x & low
        middle = (b * d >> half) + (a * d & low) + (b * c & low)
        return a * c + (a * d >> half) + (b * c >> half) + (middle >> half), (middle << half) | (b * d & low)

    c = [block + np.uint64(1), step, np.zeros_like(step), np.zeros_like(step)]
    for k in range(10):
        (high_0, low_0), (high_1, low_1) = product(M0, c[0]), product(M1, c[2])
        key_0, key_1 = np.uint64((seed + k * W0) % 2**64), np.uint64((stream + k * W1) % 2**64)
        c = [high_1 ^ c[1] ^ key_0, low_1, high_0 ^ c[3] ^ key_1, low_0]
    return c


def normal(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float64, by the Box-Muller transform of pairs of words."""
    u = words(key, int(np.prod(shape)), 2) / 2.0**32
    return (np.sqrt(-2 * np.log1p(-u[:, 0])) * np.cos(2 * np.pi * u[:, 1])).reshape(shape)


def stratified_t(key: Key, n: int, T: int) -> np.ndarray:
    """n steps spread evenly over 1..T with one random offset, (n,) int64: t_i = 1 + floor(T (u + i) / n).

    Together they are uniform; a single t_i keeps to its stratum, so it is for the caller to give each place a random
    row. In integers, u being one word: exact, and the same on every back end. Derivation, section 9.
    """
    offset = int(words(key, 1, 1)[0, 0]) * T >> 32
    return 1 + (np.arange(n, dtype=np.int64) * T + offset) // n
