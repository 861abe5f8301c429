"""The reverse chain with a perceptron, many steps for many rows in one compiled call, for the family that
hooks_numba.py puts in.

Each thread walks its rows through all the steps. The network is asked only for rows that may change, as the family sees
from their random words: of 20 bits in a chain of 2000 steps it is one row in twelve, with the same result as asking for
all. Derivation, section 11.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared import blas_numba, philox_numba
from bdiff_np.kernels.shared import crew_numba as crew
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.philox_numba import Noise
from bdiff_np.kernels.training import hooks_numba as family
from bdiff_np.kernels.training import input_numba

u64 = np.uint64
TOGETHER = 256  # rows that a thread walks at a time
BLOCK = 256  # of steps, whose tables are worked out together


class Space(NamedTuple):
    """What each thread needs for R rows."""

    buffer: np.ndarray  # (threads, R * floats) float32, the network's
    panels: np.ndarray  # (threads, plan.panels) float32, for products
    runs: np.ndarray  # (threads, 2) int64: 0 and the number of rows that the network is asked for
    work: np.ndarray  # (threads, work * R * D) float32, the family's
    x: np.ndarray  # (threads, R, D): the rows that the network is asked for
    may: np.ndarray  # (threads, R) uint8: which of the R rows these are,
    row: np.ndarray  # (threads, R) int64: and their numbers
    t: np.ndarray  # (threads, R) int64
    words: np.ndarray  # (threads, R, 4 * blocks) uint32


class Walk(NamedTuple):
    """Steps first, first - 1, ..., first - steps + 1 of the chain."""

    first: int
    time: np.ndarray  # (T + 1,) int64, t as the network gets it
    tables: np.ndarray  # (steps, n) float32: scale beside shift of each layer, which all rows of a step share
    limits: np.ndarray  # (steps, ...), the family's
    seed: int
    first_row: int
    free: np.ndarray  # (B, D) uint8, 0 where an element is known and stays; empty if all are free
    x: np.ndarray  # (B, D), the rows, in place


class FusedChain:
    """Walks rows back through the chain.

    model : of the weights to use. kernels : of the chain to walk, which may leave steps out. rows : how many there will
        be at a time, about
    """

    function = "fused_chain_numba.walk_back"  # what takes long to compile

    def __init__(self, model, kernels, rows: int = TOGETHER, threads: int | None = None):
        self.net, self.params, self.kernels, self.chain, self.law = (
            model.net,
            model.params,
            kernels,
            kernels.chain,
            kernels.law,
        )
        self.plan, self.threads = mlp.make_plan(model.net, training=False), threads or crew.cores()
        self._blocks: dict[int, np.ndarray] = {}
        n, D = self.threads, model.D
        R = max(2, min(TOGETHER, -(-rows // n)))
        self.space = Space(
            mlp.aligned(n, R * int(self.plan.slots[1])), mlp.aligned(n, self.plan.panels), np.zeros((n, 2), np.int64),
            np.zeros((n, kernels.work * R * D), np.float32),
            np.zeros((n, R, D), model.x_dtype), np.zeros((n, R), np.uint8), np.zeros((n, R), np.int64),
            np.zeros((n, R), np.int64), np.zeros((n, R, 4 * kernels.blocks(D)), np.uint32),
        )  # fmt: skip

    def __call__(
        self, x: np.ndarray, first: int, steps: int, *, seed: int, first_row: int = 0, known: np.ndarray | None = None
    ) -> None:
        """Takes x (B, D), in place, from x_first to x_{first - steps}. known : (B, D) bool, elements that stay as they
        are"""
        t = np.arange(first, first - steps, -1)
        free = np.zeros((0, x.shape[1]), np.uint8) if known is None else np.ascontiguousarray(~known, np.uint8)
        walk = Walk(
            first, self.chain.time, self._tables(t), self.kernels.limits(t, x.shape[1]), seed, first_row, free, x
        )
        tasks = -(-len(x) // self.space.t.shape[1])
        with blas_numba.one_thread():
            crew.run(
                min(self.threads, tasks), tasks, walk_back, self.plan, self.law, self.params.flat, self.space, walk
            )

    def _tables(self, t: np.ndarray) -> np.ndarray:
        """Scale and shift of every hidden layer at t. By blocks of t that are always the same: BLAS rounds by the
        number of rows."""
        low, high = t[-1] // BLOCK, t[0] // BLOCK
        self._blocks = {b: self._blocks[b] if b in self._blocks else self._block(b) for b in range(low, high + 1)}
        return np.concatenate([self._blocks[b] for b in range(low, high + 1)])[t - low * BLOCK]

    def _block(self, b: int) -> np.ndarray:
        features = self.net.features[self.chain.time[b * BLOCK : (b + 1) * BLOCK]]
        return np.concatenate(
            [features @ self.params[f"{layer.name}/F"] for layer, *_ in self.net.stages if layer.film], axis=1
        )


def build(model, kernels, rows: int = TOGETHER) -> FusedChain | None:
    """The fused chain of a model, or None where hooks_numba.can_fuse says no."""
    return FusedChain(model, kernels, rows) if family.can_fuse(model.net, kernels) else None


@njit(nogil=True)
def walk_back(own, plan, law, params, space, walk):
    """One thread's part; `own` is its crew_numba.Crew."""
    tasks, together = own.claims.size // crew.APART, space.t.shape[1]
    for i in range(tasks):
        task = (i + crew.first(own, tasks)) % tasks
        if not crew.taken(own, task, 0):
            lo = task * together
            for s in range(walk.tables.shape[0]):
                _step(plan, law, params, space, walk, (own.rank, s, lo, min(lo + together, walk.x.shape[0])))


@njit(inline="always")  # it has one caller: compiled by itself too, it took a second longer
def _step(plan, law, params, space, walk, where):
    """One step back for rows lo .. hi - 1."""
    rank, s, lo, hi = where
    x = walk.x
    B, D, t = hi - lo, x.shape[1], walk.first - s
    words, row, first = space.words[rank, :B], space.row[rank, :B], walk.first_row + lo
    address = u64(walk.seed), u64(rng.P_NOISE), u64(t)
    philox_numba.fill_rows(*address, first, words, row)
    chosen, may = space.x[rank], space.may[rank, :B]
    family.may_change(law, walk.limits[s], Noise(words, row, *address), x[lo:hi], may)
    count = 0
    for r in range(B):
        if may[r] != 0:
            row[count] = first + r
            mlp.copy(x[lo + r], chosen[count])
            mlp.copy(words[r], words[count])  # of a row that has been asked, or this one
            count += 1
    if count == 0:
        return
    x_t, every, buffer, runs = chosen[:count], space.t[rank, :count], space.buffer[rank], space.runs[rank]
    for r in range(count):
        every[r] = t
    runs[1] = count
    input_numba.read_at(plan, law, x_t, walk.time[t], buffer)
    mlp.forward(plan, params, buffer, runs, walk.tables[s], space.panels[rank], None)
    noise = Noise(words[:count], row[:count], *address)
    family.p_sample(law, every, mlp.outputs(plan, buffer, mlp.U, count), noise, space.work[rank], x_t)
    for r in range(count):
        at = row[r] - walk.first_row
        for d in range(D):
            if walk.free.shape[0] == 0 or walk.free[at, d] != 0:
                x[at, d] = x_t[r, d]
