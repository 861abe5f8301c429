"""Noise: which random words belong to (seed, stream, step, row).

Every random number of training, sampling and evaluation is a word of Philox4x32-10 (Salmon et al. 2011), found by its
address and not by the order of the draws:

    key     = (seed, seed >> 32)                      the halves of the seed, 32 bits each, as all that follows
    counter = (block, block >> 32, step, stream)      stream: what the noise is for, one of the constants below

A block is four words; a row of D words owns ceil(D / 4) blocks, one after another. So a row draws the same words
whatever the batch, slice, thread or rank that holds it, and to resume a run takes its seed and its step, nothing else.

A word that is only compared with a threshold is drawn in two parts, `draws`: its top byte first, of which a block holds
sixteen, and the rest, 24 bits of a word of the stream `stream | TIE`, only where the top byte is the threshold's, one
time in 256. Every back end decides from as few blocks as it likes: the word is the same. Derivation, section 14.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

M0, M1 = 0xD2511F53, 0xCD9E8D57  # of Philox4x32: the multipliers of a round,
W0, W1 = 0x9E3779B9, 0xBB67AE85  # and what is added to the key after each
ROUNDS = 10
MASK = 0xFFFFFFFF  # the lower half of 64 bits
TIE = 1 << 31  # of a stream: the words that decide where a byte does not
STEPS = 1 << 32  # a step is less

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
    EXAMPLES,
    KNOWN,
    WAVES,
    CENSUS,
) = range(18)

FEW = 12  # blocks that are made one by one: in arrays they would take longer
TOGETHER = 1 << 13  # blocks whose arrays stay in a core's cache


class Key(NamedTuple):
    """The part of an address that a whole batch shares.

    seed : int, 0 .. 2**64 - 1
    stream : int, what the noise is for (a constant of this module), less than TIE
    step : int, an optimiser step, a step t of the chain or a pass of an evaluation, as the stream has it; less than
        STEPS
    """

    seed: int
    stream: int
    step: int


def philox(seed: int, stream: int, step, block):
    """The four words of a block, Philox4x32-10. Numbers for Python's integers, uint64 arrays for arrays of blocks (and
    of steps)."""
    number = int if isinstance(block, int) else _array
    m0, m1, low, half, keys = _constants(int(seed), number)
    c0, c1, c2, c3 = block & low, block >> half, step if isinstance(step, np.ndarray) else number(step), number(stream)
    for k0, k1 in keys:
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = p1 >> half ^ c1 ^ k0, p1 & low, p0 >> half ^ c3 ^ k1, p0 & low
    return c0, c1, c2, c3


def _array(number: int) -> np.ndarray:
    """What NumPy takes with the least work, beside an array: for short ones that is most of it."""
    return np.array(number, np.uint64)


@lru_cache(16)
def _constants(seed: int, number: Callable) -> tuple:
    """The multipliers, the lower half's mask and width, and the key of each round, as integers or arrays."""
    keys = [(number(seed + r * W0 & MASK), number((seed >> 32) + r * W1 & MASK)) for r in range(ROUNDS)]
    return number(M0), number(M1), number(MASK), number(32), keys


def words(key: Key, rows: int, count: int, first_row: int = 0) -> np.ndarray:
    """Random words of rows first_row .. first_row + rows - 1.

    Returns
    -------
    (rows, count) uint32, uniform over all 2**32 values. `count` is part of the address: D words a row fix where a row's
    blocks begin.
    """
    blocks = -(-count // 4)
    return _blocks(key, first_row * blocks, rows * blocks).reshape(rows, blocks * 4)[:, :count]


def top_bytes(key: Key, rows: int, D: int, first_row: int = 0) -> np.ndarray:
    """The top bytes of `draws`, (rows, D) uint8: those of the words of ceil(D / 16) blocks a row, lowest byte first."""
    blocks = -(-D // 16)
    made = _blocks(key, first_row * blocks, rows * blocks)
    return made.astype("<u4", copy=False).view(np.uint8).reshape(rows, blocks * 16)[:, :D]


def draws(key: Key, rows: int, D: int, first_row: int = 0) -> np.ndarray:
    """Random words to be compared with thresholds, (rows, D) uint32, uniform: the byte above, 24 bits of a word of the
    key's ties below it. This is their definition; `below` compares without making all of them."""
    low = words(key._replace(stream=key.stream | TIE), rows, D, first_row)
    return np.left_shift(top_bytes(key, rows, D, first_row), 24, dtype=np.uint32) | low >> np.uint32(8)


def below(key: Key, threshold, rows: int, D: int, first_row: int = 0) -> np.ndarray:
    """draws(key, rows, D, first_row) < threshold, (rows, D) bool.

    threshold : 0 to 2**32, uint64 or floating, of any shape that becomes (rows, D)
    """
    threshold = np.asarray(threshold)
    whole = threshold.dtype.kind == "f"
    top = np.floor(threshold * threshold.dtype.type(2.0**-24)) if whole else (threshold >> 24).astype(np.uint16)
    byte = top_bytes(key, rows, D, first_row)
    is_below = byte < top
    tied = byte == top
    if tied.any():
        row, d = tied.nonzero()
        word = _tied_draws(key, byte[row, d], first_row + row, d, D)
        is_below[row, d] = word < np.broadcast_to(threshold, (rows, D))[row, d]
    return is_below


def _tied_draws(key: Key, byte: np.ndarray, row: np.ndarray, d: np.ndarray, D: int) -> np.ndarray:
    """Of `draws` those of elements d of the rows, (n,) uint64."""
    stream, block = key.stream | TIE, row.astype(np.uint64) * -(-D // 4) + d.astype(np.uint64) // 4
    if len(d) <= FEW:
        made = [philox(key.seed, stream, key.step, b)[k % 4] for b, k in zip(block.tolist(), d.tolist())]
        word = np.array(made, np.uint64)
    else:
        word = np.stack(philox(key.seed, stream, key.step, block))[d % 4, np.arange(len(d))]
    return byte.astype(np.uint64) << 24 | word >> 8


def _blocks(key: Key, first: int, n: int) -> np.ndarray:
    """Blocks first .. first + n - 1 of a key, (n, 4) uint32."""
    if not 0 <= key.step < STEPS:
        raise ValueError(f"step {key.step} has no random words: it must be less than 2**32")
    made = np.empty((n, 4), np.uint32)
    if n <= FEW:
        for k in range(n):
            made[k] = philox(key.seed, key.stream, key.step, first + k)
        return made
    for lo in range(0, n, TOGETHER):
        hi = min(lo + TOGETHER, n)
        four = philox(key.seed, key.stream, key.step, np.arange(first + lo, first + hi, dtype=np.uint64))
        for k in range(4):
            made[lo:hi, k] = four[k]
    return made


class Sequence:
    """The words of a key one after another, for what is worked out on the host alone and always whole."""

    def __init__(self, key: Key):
        self.key, self.block = key, 0

    def words(self, n: int) -> np.ndarray:
        """The next n words of 64 bits, (n,) uint64: of each two of 32 bits the first is the low half."""
        blocks = -(-n // 2)
        made = _blocks(self.key, self.block, blocks)
        self.block += blocks
        return made.astype("<u4", copy=False).view("<u8").reshape(-1)[:n]

    def random(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Numbers in [0, 1), multiples of 2**-53."""
        return (self.words(int(np.prod(shape))) >> 11).reshape(shape) * 2.0**-53

    def integers(self, n: int, size: int) -> np.ndarray:
        """Of 0 .. n - 1, (size,) int64."""
        return (self.random((size,)) * n).astype(np.int64)

    def permutation(self, n: int) -> np.ndarray:
        """As the function of this name."""
        return np.argsort(self.words(n), kind="stable")


def permutation(key: Key, n: int) -> np.ndarray:
    """A uniformly random order of 0 .. n-1, (n,) int64: the order of n words of 64 bits, low half first, which does not
    change with NumPy's version."""
    return Sequence(key).permutation(n)


def permutations(seed: int, stream: int, first: int, count: int, n: int) -> np.ndarray:
    """`permutation` for keys of steps first .. first + count - 1, (count, n) int64: for short orders all at once."""
    if n > 256:
        return np.stack([permutation(Key(seed, stream, step), n) for step in range(first, first + count)])
    blocks = -(-n // 2)
    step = np.repeat(np.arange(first, first + count, dtype=np.uint64), blocks)
    block = np.tile(np.arange(blocks, dtype=np.uint64), count)
    c0, c1, c2, c3 = philox(seed, stream, step, block)
    wide = np.stack([c1 << 32 | c0, c3 << 32 | c2], axis=1).reshape(count, 2 * blocks)
    return np.argsort(wide[:, :n], axis=1, kind="stable")


def normal(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float64, by the Box-Muller transform of pairs of words."""
    u = words(key, int(np.prod(shape)), 2) / 2.0**32
    return (np.sqrt(-2 * np.log1p(-u[:, 0])) * np.cos(2 * np.pi * u[:, 1])).reshape(shape)


def normals(key: Key, rows: int, D: int, first_row: int = 0) -> np.ndarray:
    """Standard normal numbers of rows first_row, ..., (rows, D) float64. Elements 2 i and 2 i + 1 of a row are,
    with words w and v of these numbers,

        r cos a, r sin a    with r = sqrt(-2 ln u), u = (2 floor(w / 2**9) + 1) / 2**24, a = 2 pi v / 2**32

    (Box and Muller 1958). u is a float32 without rounding, never 0 nor 1: numbers go to 5.77, beyond which lie 8 of
    10**9. Kernels compute the same in their own precision.
    """
    w = words(key, rows, D + D % 2, first_row)
    r = np.sqrt(-2 * np.log((2 * (w[:, ::2] >> np.uint32(9)) + 1) * 2.0**-24))
    a = (2 * np.pi / 2**32) * w[:, 1::2]
    return np.stack([r * np.cos(a), r * np.sin(a)], axis=2).reshape(w.shape)[:, :D]


def generator(key: Key) -> np.random.Generator:
    """NumPy's own, seeded by words of a key: for code of users, who expect its methods."""
    return np.random.Generator(np.random.PCG64(words(key, 1, 8)[0].tolist()))


def stratified_t(key: Key, n: int, T: int) -> np.ndarray:
    """n steps spread evenly over 1..T with one random offset, (n,) int64: t_i = 1 + floor(T (u + i) / n).

    Together they are uniform; a single t_i keeps to its stratum, so it is for the caller to give each place a random
    row. In integers, u being one word: exact, and the same on every back end. Derivation, section 9.
    """
    offset = int(words(key, 1, 1)[0, 0]) * T >> 32
    return 1 + (np.arange(n, dtype=np.int64) * T + offset) // n
