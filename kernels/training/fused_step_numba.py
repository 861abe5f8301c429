"""Many optimiser steps with a perceptron in one compiled call: the five lines of train.py, fused, for the family that
hooks_numba.py puts in.

A thread takes a group of the batch's rows, slice by slice, through noise, forward, KL gradient and backward. With a
narrow net each group has a gradient of its own, and these are summed; with a wide one, whose gradient is large, every
slice is kept (unless the batch is too large for that), and the gradient is worked out once, tile by tile over all
slices. Then AdamW runs over the flat buffers, piece by piece. Of a small net each thread has copies of all buffers,
sums all gradients and takes the whole AdamW step by itself: then threads wait for each other once a step, and half of
the weights need not travel from core to core. Groups, slices, tiles and pieces are fixed by the sizes alone and sums
have one order, so the weights that result do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.kernels.dense import dense_numba as dense
from bdiff_np.kernels.dense.dense_codes import Rates, rates_table
from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared import blas_numba, order_numba, philox_numba
from bdiff_np.kernels.shared import crew_numba as crew
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.philox_numba import Noise
from bdiff_np.kernels.training import hooks_numba as family
from bdiff_np.kernels.training import input_numba

u64 = np.uint64
ROWS = 32  # of a group of a narrow net at least
MOST_GROUPS, GRADIENTS = 64, 1 << 24  # groups, and floats of all their gradients
PIECE = 1 << 14  # parameters that AdamW takes together, about
KEPT = 1 << 26  # floats of all slices together, up to which they are kept
UNPACKED = 1 << 27  # elements of the data up to which they are read as they are, and not from packed rows
LARGEST = float(np.finfo(np.float32).max)  # square of a gradient's length with which a step is taken
COPIED = 1 << 16  # floats of all gradients together, up to which each thread sums them by itself


class FusedSteps:
    """Takes many steps of one training in one call; `groups` and all other cuts come from the sizes alone.

    net : with `stages` (nets.Net). kernels : of a family that fills hooks_numba.py. optimizer : optim.AdamW. rows :
        data.Data
    params : Params, the weights, trained in place. batch : rows of a step, repeats included. seed : of all noise
    threads : of the crew, as many as there are cores by default. x_dtype : of x_t, the data's by default
    """

    function = "fused_step_numba.take"  # what takes long to compile
    empty = staticmethod(np.empty)  # of arrays that `orders` fills

    def __init__(
        self, net, kernels, params, optimizer, *, rows, batch: int, seed: int, threads: int | None = None, x_dtype=None
    ):
        self.data, self.unpacked = rows, rows.all() if len(rows) * net.D <= UNPACKED else None
        self.plan, self.law, self.T, D, P = mlp.make_plan(net), kernels.law, kernels.chain.T, net.D, params.flat.size
        # Few rows a group leave matrix products below their rate; many groups are many gradients to write and to add.
        # Measured: RESULTS.md.
        each = (
            max(4 * ROWS, min(8 * ROWS, batch // 2)) if net.width > mlp.WIDE else max(ROWS, min(8 * ROWS, batch // 2))
        )
        groups, floats = max(1, batch // each), int(self.plan.slots[1])
        self.keeps = net.width > mlp.WIDE and groups > 1 and batch * floats <= KEPT
        if not self.keeps:
            groups = min(groups, MOST_GROUPS, max(1, GRADIENTS // P))
        small = groups * P <= COPIED and not self.keeps
        pieces = 1 if small else max(1, min(groups, 2), P // PIECE)
        sums = len(self.plan.tiles) if self.keeps else pieces
        self.tasks, self.seed, self.batch, self.clip = (
            max(groups, pieces, sums),
            seed,
            batch,
            optimizer.settings.clip_thresh or np.inf,
        )
        self.threads = min(threads or crew.cores(), self.tasks if self.keeps else groups)
        self.copies = self.threads if small else 1
        n, R = (groups, -(-batch // groups)) if self.keeps else (self.threads, min(2 * ROWS, -(-batch // groups)))
        self.buffers = [params.flat, optimizer.m.flat, optimizer.v.flat, optimizer.ema.flat]
        decayed = optimizer.decayed.astype(np.uint8)
        if self.copies > 1:
            p, m, v, ema = (mlp.aligned(self.copies, mlp.pitch(P)) for _ in self.buffers)
            grads, decayed = mlp.aligned(2 * groups + self.copies, mlp.pitch(P)), np.pad(decayed, (0, mlp.pitch(P) - P))
        else:
            p, m, v, ema = (flat[None] for flat in self.buffers)
            grads = mlp.aligned(1 if self.keeps else groups, P)
        self.weights = Weights(p, grads, m, v, ema, decayed)
        self.space = Space(
            buffer=mlp.aligned(n, R * floats), panels=mlp.aligned(self.threads, self.plan.panels),
            runs=np.zeros((n, R + 2), np.int64), work=np.zeros((n, kernels.work * R * D), np.float32),
            x0=np.zeros((n, R, D), rows.dtype), x_t=np.zeros((n, R, D), x_dtype or rows.dtype),
            t=np.zeros((n, R), np.int64),
            row=np.zeros((n, R), np.int64), words=np.zeros((n, R, 4 * kernels.blocks(D)), np.uint32),
            kl=np.zeros((2, batch)), squares=np.zeros(sums), groups=groups, pieces=pieces, size=P,
        )  # fmt: skip

    def __call__(
        self, index: np.ndarray, first: int, numbers: dict, logged: np.ndarray
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Steps first, first + 1, ..., in place on the optimiser's buffers.

        index : (steps, b) rows of the data. numbers : ops.adamw's numbers of each step. logged : (steps,) bool,
            whether a step's loss is wanted

        Returns
        -------
        taken : fewer than asked if a gradient is not finite. losses : (steps,) mean KL in nats where wanted. norms :
            (steps,) of the gradients
        """
        rows, count = self.unpacked, len(index)
        if rows is None:
            rows, index = self.data.take(index.reshape(-1)), np.arange(index.size).reshape(index.shape)
        losses, norms = np.zeros(count), np.full(count, np.nan)
        steps = Steps(
            rows,
            index,
            rates_table(count, numbers),
            logged,
            losses,
            norms,
            first,
            self.batch,
            self.seed,
            self.clip,
            self.T,
        )
        copies = [self.weights.params, self.weights.m, self.weights.v, self.weights.ema] if self.copies > 1 else []
        for flat, rows in zip(self.buffers, copies):
            rows[:, : flat.size] = flat
        with blas_numba.one_thread():
            crew.run(self.threads, self.tasks, take, self.plan, self.law, self.weights, self.space, steps)
        for flat, rows in zip(self.buffers, copies):
            flat[...] = rows[0, : flat.size]
        return int(np.isfinite(norms).sum()), losses, norms

    def orders(self, first: int, passes: int, N: int) -> np.ndarray:
        """rng.permutation of N rows for so many passes over the data, (passes, N) int64."""
        words = np.empty((passes, -(-N // 2), 4), np.uint32)
        for_each = u64(self.seed), u64(rng.SHUFFLE)
        _shuffles(*for_each, u64(first), words)
        return order_numba.argsort(words.view(np.uint64).reshape(passes, -1)[:, :N], self.threads)


def build(model, kernels, optimizer, *, rows, batch: int, seed: int) -> FusedSteps | None:
    """The fused steps of a training, or None where hooks_numba.can_fuse says no."""
    return (
        FusedSteps(
            model.net, kernels, model.params, optimizer, rows=rows, batch=batch, seed=seed, x_dtype=model.x_dtype
        )
        if family.can_fuse(model.net, kernels)
        else None
    )


@njit
def _shuffles(seed, stream, first, words):
    for k in range(words.shape[0]):
        philox_numba.fill(seed, stream, first + u64(k), u64(0), words[k])


class Weights(NamedTuple):
    """Flat buffers, float32. Rows of P: one that all threads share, or one for each of them."""

    params: np.ndarray
    grads: np.ndarray  # groups; or 1, of slices that are kept; or twice the groups, for odd and even steps, and threads
    m: np.ndarray
    v: np.ndarray
    ema: np.ndarray
    decayed: np.ndarray  # (P,) uint8, a fourth of what there is to read


class Space(NamedTuple):
    """Room for n slices of R rows at most: one for each thread, or one for each group where slices are kept. And what
    threads tell each other."""

    buffer: np.ndarray  # (n, R * floats) float32, the network's
    panels: np.ndarray  # (threads, plan.panels) float32, for products
    runs: np.ndarray  # (n, R + 2) int64: how many there are, and mlp.find_runs
    work: np.ndarray  # (n, work * R * D) float32, the family's
    x0: np.ndarray  # (n, R, D) of the data's dtype
    x_t: np.ndarray  # (n, R, D)
    t: np.ndarray  # (n, R) int64
    row: np.ndarray  # (n, R) int64, numbers within the batch
    words: np.ndarray  # (n, R, 4 * blocks) uint32
    kl: np.ndarray  # (2, batch) float64, nats, of odd and even steps
    squares: np.ndarray  # (tiles or pieces,) float64, of the gradient
    groups: int
    pieces: int
    size: int  # P


class Steps(NamedTuple):
    """What a number of steps needs, worked out beforehand."""

    rows: np.ndarray  # (N, D), of the data
    chosen: np.ndarray  # (steps, b) int64, which of them belong to each step
    rates: np.ndarray  # (steps, 8) float32, AdamW's Rates, before clipping
    logged: np.ndarray  # (steps,) bool, whether the loss is wanted
    losses: np.ndarray  # (steps,) float64, mean KL in nats of the steps where it is
    norms: np.ndarray  # (steps,) float64, of the gradient before clipping
    first: int  # number of the first step
    batch: int  # rows of a step: a multiple of b
    seed: int
    clip: float  # largest norm, inf for none
    T: int


@njit(inline="always")  # these have one caller: compiled by themselves too, they took four seconds longer
def _slice(plan, law, weights, space, steps, where):
    """Noise, forward, KL gradient and backward for the rows lo .. hi - 1 of step s's batch, in one place of the
    space."""
    s, lo, hi, place, rank = where
    B, T, step, b = hi - lo, steps.T, u64(steps.first + s), steps.chosen.shape[1]
    x0, x_t, t, buffer = space.x0[place, :B], space.x_t[place, :B], space.t[place, :B], space.buffer[place]
    row, words, address = space.row[place, :B], space.words[place, :B], (u64(steps.seed), u64(rng.Q_NOISE), step)
    word = philox_numba.block(u64(steps.seed), u64(rng.TIME), step, 0)[0]
    for r in range(B):
        t[r] = philox_numba.stratified_t(word, lo + r, steps.batch, T)
        mlp.copy(steps.rows[steps.chosen[s, (lo + r) % b]], x0[r])
    philox_numba.fill_rows(*address, lo, words, row)
    family.q_sample(law, t, Noise(words, row, *address), x0, x_t)
    space.runs[place, 0] = mlp.find_runs(t, space.runs[place, 1:])
    runs, panels = _runs(space, place), space.panels[rank]
    input_numba.read(plan, law, x_t, t, runs, buffer)
    params = weights.params[rank if weights.params.shape[0] > 1 else 0]
    mlp.forward(plan, params, buffer, runs, buffer[:0], panels, (u64(steps.seed), step, row))
    out, dout = mlp.outputs(plan, buffer, mlp.U, B), mlp.outputs(plan, buffer, mlp.DZ, B)
    kl = space.kl[s % 2, lo : hi if steps.logged[s] else lo]
    family.kl_grad(law, t, out, x0, x_t, space.work[place], dout, kl)
    mlp.backward(plan, params, buffer, runs, panels)


@njit(inline="always")
def _runs(space, place):
    """The runs of the slice that lies there."""
    return space.runs[place, 1 : space.runs[place, 0] + 2]


@njit(inline="always")
def _rows(steps, space, group):
    """First and last row of a group."""
    return steps.batch * group // space.groups, steps.batch * (group + 1) // space.groups


@njit(inline="always")
def _group(plan, law, weights, space, steps, task):
    """All rows of a group: one slice that is kept, or slices of R rows at most and their gradient, in row `to`."""
    s, group, to, rank = task
    (start, stop), R = _rows(steps, space, group), space.t.shape[1]
    kept = weights.grads.shape[0] < space.groups
    for lo in range(start, stop, R):
        hi, place = min(lo + R, stop), group if kept else rank
        _slice(plan, law, weights, space, steps, (s, lo, hi, place, rank))
        for k in range(0 if kept else plan.tiles.shape[0]):
            mlp.weight_gradient(
                plan, space.buffer[rank], _runs(space, rank), plan.tiles[k], weights.grads[to], lo > start,
                space.panels[rank],
            )  # fmt: skip


@njit
def _sum(plan, weights, space, k, rank):
    """Part k of the whole gradient, into the first of the gradients; returns the sum of its squares."""
    grads = weights.grads
    if grads.shape[0] < space.groups:
        tile = plan.tiles[k]
        for group in range(space.groups):
            mlp.weight_gradient(
                plan, space.buffer[group], _runs(space, group), tile, grads[0], group > 0, space.panels[rank]
            )
        lo, hi = tile[mlp.START], tile[mlp.STOP]
    else:
        lo, hi = _piece(space, k)
        for group in range(1, space.groups):
            dense.add_to(grads[0, lo:hi], grads[group, lo:hi])
    return dense.square_sum(grads[0, lo:hi])


@njit(inline="always")
def _piece(space, k):
    """First and last parameter of a piece."""
    return space.size * k // space.pieces, space.size * (k + 1) // space.pieces


@njit
def _update(weights, k, g, row, factor, lo, hi):
    """AdamW on parameters lo .. hi - 1 of row k, with the gradient g."""
    rates = Rates(row[0] * factor, row[1], row[2], row[3], row[4], row[5], row[6], row[7])
    p, _, m, v, ema, decayed = weights
    dense.adamw((p[k, lo:hi], g[lo:hi], m[k, lo:hi], v[k, lo:hi], ema[k, lo:hi]), decayed[lo:hi], rates)


@njit(nogil=True, error_model="numpy")
def take(own, plan, law, weights, space, steps):
    """One thread's part in taking the steps; `own` is its crew_numba.Crew. A gradient that is not finite ends them
    before its step; those taken have left a norm.

    Where each thread has copies of all buffers, it takes its own groups alone, waits for the others', sums all
    gradients and updates its copies. What others still read is not written, for it belongs to odd steps if this one is
    even.
    """
    groups, sums, pieces, rank = space.groups, space.squares.size, space.pieces, own.rank
    copies, mine = weights.params.shape[0] > 1, crew.first(own, groups)
    row = rank if copies else 0  # of the weights
    count = groups * (rank + 1) // own.threads - mine if copies else groups
    before = 0
    for s in range(steps.rates.shape[0]):
        if not crew.ready(own, before):
            return
        odd = groups * (s % 2) if copies else 0
        for i in range(count):
            group = (i + mine) % groups
            if copies or not crew.taken(own, group, 3 * s):
                _group(plan, law, weights, space, steps, (s, group, odd + group, rank))
                crew.done(own)
        before += groups
        if not crew.ready(own, before):
            return
        if copies:
            norm = _length(_sum_alone(weights, space, odd, rank)) * steps.rates[s, 0]
            if not math.isfinite(norm):
                return
            if rank == 0:
                _log(space, steps, s, norm)
            lo, hi = _piece(space, 0)  # the only one
            _update(weights, row, _total(weights, space, rank), steps.rates[s], _factor(steps, norm), lo, hi)
            continue
        for i in range(sums):
            k = (i + crew.first(own, sums)) % sums
            if not crew.taken(own, k, 3 * s + 1):
                space.squares[k] = _sum(plan, weights, space, k, rank)
                crew.done(own)
        before += sums
        if not crew.ready(own, before):
            return
        # A late thread may read squares of the next step here: then all pieces of this one are taken, and its factor is
        # not used.
        norm = _norm(space.squares, steps.rates[s, 0])
        if not math.isfinite(norm):
            crew.stop(own)
            return
        for i in range(pieces):
            k = (i + crew.first(own, pieces)) % pieces
            if not crew.taken(own, k, 3 * s + 2):
                if k == 0:
                    _log(space, steps, s, norm)
                lo, hi = _piece(space, k)
                _update(weights, row, weights.grads[0], steps.rates[s], _factor(steps, norm), lo, hi)
                crew.done(own)
        before += pieces


@njit(inline="always")
def _total(weights, space, rank):
    """Where a thread with copies sums the gradients."""
    return weights.grads[2 * space.groups + rank, : space.size]


@njit(inline="always")
def _sum_alone(weights, space, odd, rank):
    """All gradients from row `odd` on into `_total`; returns the sum of its squares."""
    grads, total = weights.grads, _total(weights, space, rank)
    dense.add(grads[odd], grads[odd + 1], total)
    for group in range(2, space.groups):
        dense.add_to(total, grads[odd + group])
    return dense.square_sum(total)


@njit
def _factor(steps, norm):
    """What clips the gradient."""
    return np.float32(1.0 if norm <= steps.clip else steps.clip / norm)


@njit
def _norm(squares, scale):
    total = 0.0
    for k in range(squares.size):
        total += squares[k]
    return _length(total) * scale


@njit
def _length(square):
    """Its root; not finite where float32 does not hold the square, as of operations one by one (Ops.norm)."""
    return math.sqrt(square) if square <= LARGEST else math.inf


@njit(error_model="numpy")
def _log(space, steps, s, norm):
    steps.norms[s] = norm
    if steps.logged[s]:
        for r in range(steps.batch):
            steps.losses[s] += space.kl[s % 2, r] / steps.batch
