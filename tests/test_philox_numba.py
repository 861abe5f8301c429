"""The random words of compiled code against NumPy's own generator, whose words are the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bdiff_np import rng
from bdiff_np.kernels.shared.philox_numba import fill
from bdiff_np.rng import Key

u64 = np.uint64
WORD = 2**64


def blocks(key, first, n):
    """(n, 4) of a key, from its block `first` on; what lies around them stays."""
    room = np.full((n + 2, 4), 77, u64)
    fill(u64(key.seed), u64(key.stream), u64(key.step), u64(first), room[1 : n + 1])
    assert (room[0] == 77).all() and (room[-1] == 77).all()
    return room[1 : n + 1]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**63), stream=st.integers(0, WORD - 1), step=st.integers(0, WORD - 1),
    first=st.integers(0, WORD - 50) | st.integers(2**32 - 9, 2**32 + 9), n=st.integers(0, 20),
)  # fmt: skip
@example(seed=0, stream=0, step=0, first=0, n=1)
@example(seed=2**63, stream=WORD - 1, step=WORD - 1, first=WORD - 50, n=20)
@example(seed=1, stream=rng.Q_NOISE, step=2**32, first=2**32 - 3, n=6)
def test_blocks_are_numpys(seed, stream, step, first, n):
    """Block b of a key is what numpy.random.Philox draws from the counter (b, step, 0, 0): any seed, stream, step and
    block, also across 2**32."""
    raw = np.random.Philox(key=np.array([seed, stream], u64), counter=np.array([first, step, 0, 0], u64)).random_raw(
        4 * n
    )
    np.testing.assert_array_equal(blocks(Key(seed, stream, step), first, n), np.reshape(raw, (n, 4)))


def test_blocks_do_not_depend_on_how_they_are_split():
    """Slices, each from its first block, joined give the whole, across 2**32."""
    key, first, cuts = Key(5, rng.P_NOISE, 7), 2**32 - 10, [0, 1, 9, 10, 11, 20]
    parts = [blocks(key, first + a, b - a) for a, b in zip(cuts, cuts[1:])]
    np.testing.assert_array_equal(np.concatenate(parts), blocks(key, first, 20))
