"""The KL of many rows, each at a step of its own, in one compiled call: what the bound is estimated from, for the
family that hooks_numba.py puts in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared import blas_numba, philox_numba
from bdiff_np.kernels.shared import crew_numba as crew
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.philox_numba import Noise
from bdiff_np.kernels.training import hooks_numba as family
from bdiff_np.kernels.training import input_numba

u64 = np.uint64
NARROW, TOGETHER = 64, 256  # rows that a thread takes together: of a narrow net, whose arrays stay near, and a wide


class Space(NamedTuple):
    """What each thread needs for R rows."""

    buffer: np.ndarray  # (threads, R * floats) float32, the network's
    panels: np.ndarray  # (threads, plan.panels) float32, for products
    runs: np.ndarray  # (threads, R + 1) int64, mlp.find_runs
    work: np.ndarray  # (threads, work * R * D) float32, the family's
    x0: np.ndarray  # (threads, R, D)
    x_t: np.ndarray  # (threads, R, D)
    t: np.ndarray  # (threads, R) int64, in the chain,
    time: np.ndarray  # (threads, R) int64: and as the network gets it
    row: np.ndarray  # (threads, R) int64, numbers of the noise
    words: np.ndarray  # (threads, R, 4 * blocks) uint32


class Terms(NamedTuple):
    """n terms of the bound, of which term i is the KL of rows[i % b] at t[i // again], with the noise of number
    first_row + i // again."""

    rows: np.ndarray  # (b, D)
    t: np.ndarray  # (n / again,) int64
    time: np.ndarray  # (T + 1,) int64, t as the network gets it
    seed: int
    stream: int
    step: int
    first_row: int
    again: int
    kl: np.ndarray  # (n,) float64, nats: what comes of it


class FusedKL:
    """model : of the weights to use. kernels : of the chain, which may leave steps out. rows : of a call, at most"""

    function = "fused_kl_numba.work_out"  # what takes long to compile

    def __init__(self, model, kernels, rows: int = TOGETHER, threads: int | None = None):
        self.params, self.kernels, self.time, D = model.params, kernels, kernels.chain.time, model.D
        self.plan, self.threads = mlp.make_plan(model.net, training=False), threads or crew.cores()
        n, R = self.threads, TOGETHER if model.net.width > mlp.WIDE else NARROW
        R = max(2, min(R, -(-rows // n)))
        self.space = Space(
            mlp.aligned(n, R * int(self.plan.slots[1])), mlp.aligned(n, self.plan.panels),
            np.zeros((n, R + 1), np.int64), np.zeros((n, kernels.work * R * D), np.float32),
            np.zeros((n, R, D), model.kind.dtype), np.zeros((n, R, D), model.x_dtype),
            np.zeros((n, R), np.int64), np.zeros((n, R), np.int64), np.zeros((n, R), np.int64),
            np.zeros((n, R, 4 * kernels.blocks(D)), np.uint32),
        )  # fmt: skip

    def __call__(self, x0: np.ndarray, t: np.ndarray, key, first_row: int = 0, each: bool = False) -> np.ndarray:
        """KL in nats, float64: of x0 (b, D) at t (b,), (b,); or, if `each`, of every row at each t (m,), (m * b,), all
        rows with the noise of t's number. first_row : number of the first row's noise, or that of the first t"""
        again = len(x0) if each else 1
        kl = np.empty(len(t) * again)
        terms = Terms(
            np.require(x0, self.space.x0.dtype, ["C", "W"]), np.require(t, np.int64, ["C", "W"]), self.time,
            key.seed, key.stream, key.step, first_row, again, kl,
        )  # fmt: skip
        tasks = -(-len(kl) // self.space.t.shape[1])
        if tasks:
            with blas_numba.one_thread():
                threads = min(self.threads, tasks)
                crew.run(threads, tasks, work_out, self.plan, self.kernels.law, self.params.flat, self.space, terms)
        return kl


def build(model, kernels, rows: int = TOGETHER) -> FusedKL | None:
    """The fused KL of a model, or None where hooks_numba.can_fuse says no."""
    return FusedKL(model, kernels, rows) if family.can_fuse(model.net, kernels) else None


@njit(nogil=True)
def work_out(own, plan, law, params, space, terms):
    """One thread's part; `own` is its crew_numba.Crew."""
    tasks, together = own.claims.size // crew.APART, space.t.shape[1]
    for i in range(tasks):
        task = (i + crew.first(own, tasks)) % tasks
        if not crew.taken(own, task, 0):
            _slice(plan, law, params, space, terms, (own.rank, task * together))


@njit(inline="always", error_model="numpy")  # it has one caller
def _slice(plan, law, params, space, terms, where):
    """The rows from lo on, as many as there is room for."""
    rank, lo = where
    B = min(space.t.shape[1], terms.kl.size - lo)
    x0, x_t, t, time = space.x0[rank, :B], space.x_t[rank, :B], space.t[rank, :B], space.time[rank, :B]
    row, words, buffer, panels = space.row[rank, :B], space.words[rank, :B], space.buffer[rank], space.panels[rank]
    address = u64(terms.seed), u64(terms.stream), u64(terms.step)
    for r in range(B):
        t[r] = terms.t[(lo + r) // terms.again]
        time[r] = terms.time[t[r]]
        mlp.copy(terms.rows[(lo + r) % terms.rows.shape[0]], x0[r])
    _words(address, terms, lo, words, row)
    family.q_sample(law, t, Noise(words, row, *address), x0, x_t)
    runs = space.runs[rank, : mlp.find_runs(time, space.runs[rank]) + 1]
    input_numba.read(plan, law, x_t, time, runs, buffer)
    mlp.forward(plan, params, buffer, runs, buffer[:0], panels, None)
    out, dout = mlp.outputs(plan, buffer, mlp.U, B), mlp.outputs(plan, buffer, mlp.DZ, B)
    family.kl_grad(law, t, out, x0, x_t, space.work[rank], dout, terms.kl[lo : lo + B])


@njit(inline="always")
def _words(address, terms, lo, words, row):
    """The rows' noise: drawn in one go, or once for all rows that share it."""
    first = terms.first_row
    if terms.again == 1:
        philox_numba.fill_rows(*address, first + lo, words, row)
        return
    for r in range(row.size):
        number = first + (lo + r) // terms.again
        if r > 0 and row[r - 1] == number:
            mlp.copy(words[r - 1], words[r])
            row[r] = number
        else:
            philox_numba.fill_rows(*address, number, words[r : r + 1], row[r : r + 1])
