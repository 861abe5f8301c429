"""Which rows each step shows: an endless sequence of passes over the data, each in an order of its own. Arrays of any
back end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Orders:
    """Keeps the orders of the passes that are under way.

    make : (first, passes) -> (passes, N) integers, rows in the order of passes first, first + 1, ...
        (rng.permutations). N : rows of the data
    empty : (shape, dtype) -> an array of the kind that `make` gives, with anything in it
    """

    def __init__(self, make: Callable[[int, int], Any], empty: Callable[..., Any], N: int):
        self.make, self.empty, self.N = make, empty, N
        self.low = 0
        self.kept: Any = None  # pass number `low` and those after it

    def take(self, first: int, count: int):
        """Places first .. first + count - 1 of the sequence, count >= 1: the rows that stand there, (count,)."""
        low, high = first // self.N, (first + count - 1) // self.N
        kept: Any = (
            None
            if self.kept is None or not self.low <= low < self.low + len(self.kept)
            else self.kept[low - self.low :]
        )
        fresh = low + (0 if kept is None else len(kept))
        if fresh <= high:
            made = self.make(fresh, high + 1 - fresh)
            if kept is not None:
                both = self.empty((high + 1 - low, self.N), made.dtype)
                both[: len(kept)], both[len(kept) :] = kept, made
                made = both
            kept = made
        self.low, self.kept = low, kept
        return kept.reshape(len(kept) * self.N)[first - low * self.N : first - low * self.N + count]
