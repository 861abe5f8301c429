"""The order of random words, which is a random order of what they stand for, in compiled code.

Words are uniform: as many buckets as there are words, by their upper bits, hold one or two each, and what is left of
sorting is to compare neighbours. The same order as numpy.argsort's stable one, in a tenth of its time.
"""

from __future__ import annotations

import numpy as np

from bdiff_np.kernels.shared import crew_numba as crew
from bdiff_np.kernels.shared.compiled_numba import njit

u64 = np.uint64


def argsort(words: np.ndarray, threads: int = 1) -> np.ndarray:
    """np.argsort(words, axis=1, kind="stable") for uniform words (rows, n) uint64."""
    rows, n = words.shape
    bits = max(1, (n - 1).bit_length())
    threads = min(threads, rows)
    order, starts = np.empty((rows, n), np.int64), np.empty((threads, (1 << bits) + 1), np.int64)
    crew.run(threads, rows, _argsort, words, u64(64 - bits), starts, order)
    return order


@njit(nogil=True)
def _argsort(own, words, shift, starts, order):
    rows = words.shape[0]
    for i in range(rows):
        r = (i + crew.first(own, rows)) % rows
        if not crew.taken(own, r, 0):
            _sort(words[r], shift, starts[own.rank], order[r])


@njit
def _sort(words, shift, starts, order):
    n, last = words.size, starts.size - 1
    for b in range(starts.size):
        starts[b] = 0
    for i in range(n):
        starts[np.int64(words[i] >> shift) + 1] += 1
    for b in range(last):
        starts[b + 1] += starts[b]
    for i in range(n):  # starts[b] is where the next word of bucket b goes, and in the end where b + 1 begins
        b = np.int64(words[i] >> shift)
        order[starts[b]] = i
        starts[b] += 1
    for place in range(1, n):
        i, k = order[place], place
        while k > 0 and words[order[k - 1]] > words[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
