"""Whether the random words look random where a training walks: a small battery in the spirit of PractRand, which it is
not.

Each statistic is some standard deviations away from what independent uniform words give, and so is shown by generators
that are too weak: fewer rounds of the same, and a counter that is not mixed at all.
"""

from __future__ import annotations

import numpy as np
import pytest

from bdiff_np import rng
from bdiff_np.rng import Key

N = 1 << 12  # addresses one after another
PASS, FAIL = 5.5, 8.0  # standard deviations: less for what is random, more for what is not

# What a training walks along, as words (N, 4) of consecutive addresses
# ----------------------------------------------------------------------------------------------------------------------


def one_by_one(address) -> np.ndarray:
    return np.array([rng.philox(*address(i)) for i in range(N)], np.uint32)


WALKS = {
    "rows": lambda: rng.words(Key(0, rng.Q_NOISE, 1), N, 4),
    "rows beyond 2**32": lambda: rng.words(Key(1, rng.P_NOISE, 2000), N, 4, 2**32 - N // 2),
    "steps": lambda: one_by_one(lambda i: (0, rng.Q_NOISE, i, 0)),
    "streams": lambda: one_by_one(lambda i: (0, i, 1, 0)),
    "dropout's layers": lambda: one_by_one(lambda i: (0, rng.DROPOUT + (i << 8), 1, 0)),
    "seeds": lambda: one_by_one(lambda i: (i, rng.Q_NOISE, 1, 0)),
    "seeds, upper half": lambda: one_by_one(lambda i: (i << 32, rng.Q_NOISE, 1, 0)),
    "ties": lambda: rng.words(Key(0, rng.Q_NOISE | rng.TIE, 1), N, 4),
    "a byte and its ties": lambda: rng.words(Key(0, 3, 1), N, 4) ^ rng.words(Key(0, 3 | rng.TIE, 1), N, 4),
    "draws of rows": lambda: rng.draws(Key(0, rng.Q_NOISE, 1), N, 4),
    "draws of wide rows": lambda: rng.draws(Key(0, rng.Q_NOISE, 1), N // 128, 512).reshape(N, 4),
}

# Statistics of words (n, 4): the largest distance from the expected figure, in standard deviations
# ----------------------------------------------------------------------------------------------------------------------


def bits_of(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1)


def halves(yes: np.ndarray) -> float:
    """Of columns whose every entry is 1 with probability 1/2."""
    return float(np.abs(2 * yes.mean(0) - 1).max() * len(yes) ** 0.5)


def evenly(cells: np.ndarray, n: int) -> float:
    """Pearson's statistic of numbers that are uniform over 0 .. n - 1."""
    expected = cells.size / n
    found = ((np.bincount(cells.ravel(), minlength=n) - expected) ** 2 / expected).sum()
    return float(abs(found - (n - 1)) / (2 * (n - 1)) ** 0.5)


def bit_frequency(words):
    """Each of the 128 bits is a 1 in half of the blocks."""
    return halves(bits_of(words))


def byte_frequency(words):
    """Each byte, at any place, has all of its values equally often."""
    return max(evenly(words.view(np.uint8)[:, k::4], 256) for k in range(4))


def neighbours(words):
    """Each bit differs from the next address's in half of the cases, and from the one after the next: the runs of a
    bit have the length they should."""
    bits = bits_of(words)
    return max(halves(bits[k:] ^ bits[:-k]) for k in (1, 2))


def neighbouring_bits(words):
    """No bit of a block depends on any other of it."""
    signs = bits_of(words).astype(np.float64) * 2 - 1
    together = signs.T @ signs / len(signs) ** 0.5
    return float(np.abs(together[~np.eye(128, dtype=bool)]).max())


def pairs(words):
    """The four highest bits of a word and of the same word of the next address; of the four lowest likewise."""
    high, low = words >> 28, words & 15
    return max(evenly(16 * a[:-1] + a[1:], 256) for a in (high, low))


def ascents(words):
    """Of each two words that follow one another the second is larger in half of the cases: n / 2 ascents, of variance
    (n + 1) / 12."""
    n = len(words)
    rises = (words[1:] > words[:-1]).sum(0)
    return float(np.abs(rises - (n - 1) / 2).max() / ((n + 1) / 12) ** 0.5)


def birthday_spacings(words):
    """Of 512 days of a year of 2**24 two pairs lie equally far apart, on average: repeated distances are Poisson's,
    over the highest and the lowest 24 bits of all words."""
    found = []
    for days in (words >> 8, words & 0xFFFFFF):
        years = np.sort(days.T.reshape(-1, 512), axis=1)
        spacings = np.sort(np.diff(years, axis=1), axis=1)
        repeats, expected = (np.diff(spacings, axis=1) == 0).sum(), len(years) * 512**3 / 2**26
        found.append(abs(repeats - expected) / expected**0.5)
    return float(max(found))


STATISTICS = (bit_frequency, byte_frequency, neighbours, neighbouring_bits, pairs, ascents, birthday_spacings)


def avalanche(samples: int = 512) -> float:
    """Each bit of an address, flipped, flips each bit of its block in half of the cases."""
    generator, worst = np.random.default_rng(0), 0.0
    block = generator.integers(0, 2**64, samples, dtype=np.uint64)
    step = generator.integers(0, 2**32, samples, dtype=np.uint64)
    seed, stream = 0x0123456789ABCDEF, 0x456

    def bits(*address):
        return bits_of(np.stack(rng.philox(*address), axis=1).astype(np.uint32))

    plain = bits(seed, stream, step, block)
    for k in range(64):
        worst = max(worst, halves(plain ^ bits(seed, stream, step, block ^ np.uint64(1 << k))))
        worst = max(worst, halves(plain ^ bits(seed ^ 1 << k, stream, step, block)))
    for k in range(32):
        worst = max(worst, halves(plain ^ bits(seed, stream, step ^ np.uint64(1 << k), block)))
        worst = max(worst, halves(plain ^ bits(seed, stream ^ 1 << k, step, block)))
    return worst


# What it says
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rounds(monkeypatch):
    """rounds(n): the same generator with so many rounds."""

    def change(n):
        monkeypatch.setattr(rng, "ROUNDS", n)
        rng._constants.cache_clear()

    yield change
    monkeypatch.undo()
    rng._constants.cache_clear()


@pytest.mark.parametrize("walk", WALKS)
def test_words_look_random(walk):
    """No statistic is 5.5 standard deviations from what it should be, along any walk: of some 3000 independent figures
    a random one would be so once in ten thousand times."""
    words = WALKS[walk]()
    found = {statistic.__name__: round(statistic(words), 1) for statistic in STATISTICS}
    assert max(found.values()) < PASS, found


def test_a_bit_of_the_address_changes_all():
    """For every bit of block, step, stream and seed."""
    assert avalanche() < PASS + 0.5  # the largest of 24,576 figures


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_each_statistic_shows_a_weak_generator(statistic, n, rounds):
    """An address that is not mixed at all and one that is mixed by two rounds: every statistic sees both, along every
    walk."""
    rounds(n)
    found = {walk: round(statistic(WALKS[walk]()), 1) for walk in WALKS}
    assert min(found.values()) > FAIL, found


@pytest.mark.parametrize("n, walks", [(1, 11), (3, 11), (4, 11), (5, 8)])
def test_few_rounds_are_shown(n, walks, rounds):
    """Up to four rounds are seen along every walk, five along most; from six on words pass."""
    rounds(n)
    found = {walk: max(statistic(WALKS[walk]()) for statistic in STATISTICS) for walk in WALKS}
    assert sum(value > FAIL for value in found.values()) >= walks, found
    assert avalanche() > FAIL


def test_ties_that_repeat_the_bytes_are_shown(monkeypatch):
    """With one stream for both, the lower bits of a draw are the bytes of its neighbours."""
    monkeypatch.setattr(rng, "TIE", 0)
    words = WALKS["draws of rows"]()
    assert neighbouring_bits(words) > FAIL
