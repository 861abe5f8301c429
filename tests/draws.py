"""Known answers of the random words, and thresholds that are hard for who compares draws by their top bytes."""

from __future__ import annotations

import numpy as np

from bdiff_np import rng
from bdiff_np.rng import Key

# Of Random123's kat_vectors, "philox4x32 10": counter (c0, c1, c2, c3) and key (k0, k1) as address and block; words.
KNOWN_ANSWERS = [
    ((Key(0, 0, 0), 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((Key(2**64 - 1, 2**32 - 1, 2**32 - 1), 2**64 - 1), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (Key(0x299F31D0A4093822, 0x03707344, 0x13198A2E), 0x85A308D3243F6A88),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def near(key: Key, rows: int, D: int, first_row: int = 0) -> list[np.ndarray]:
    """Thresholds (rows, D) uint64, 0 to 2**32, of which each draw is compared with: itself and the next number, which
    its byte does not decide; the least and the most of that byte, and one more; 0 and 2**32; and a mixture of these."""
    word = rng.draws(key, rows, D, first_row).astype(np.uint64)
    least = word >> 24 << 24
    every = [word, word + 1, least, least + 2**24 - 1, least + 2**24, 0 * word, 0 * word + 2**32]
    mixed = np.random.default_rng(0).integers(0, len(every), (rows, D))
    return [*every, np.take_along_axis(np.stack(every), mixed[None], 0)[0]]
