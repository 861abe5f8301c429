"""Which rows each step shows, beside the plain definition: pass after pass, each in its own order."""

from __future__ import annotations

import numpy as np
import pytest

from bdiff_np.data.orders import Orders


def order(p: int, N: int) -> list[int]:
    return np.random.default_rng(p).permutation(N).tolist()


@pytest.mark.parametrize("N", [1, 3, 7])
def test_any_walk_through_the_sequence(N):
    """Batches within a pass, over its end, over several; again and back: always the rows that stand there. Forward, no
    order is made twice."""
    made = []

    def make(first, passes):
        made.extend(range(first, first + passes))
        return np.array([order(p, N) for p in range(first, first + passes)])

    orders = Orders(make, np.empty, N)
    sequence = [row for p in range(30) for row in order(p, N)]
    for first, count in [(0, 1), (1, 2), (3, 5), (3, 5), (8, 20), (28, 1), (2, 3), (5, 25)]:
        np.testing.assert_array_equal(orders.take(first, count), sequence[first : first + count])
    forward = Orders(make, np.empty, N)
    made.clear()
    for first in range(0, 20, 2):
        forward.take(first, 2)
    assert made == sorted(set(made)) and len(made) == -(-20 // N)
