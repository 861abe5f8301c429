"""The kernels of Bernoulli diffusion in Numba-CUDA: those of bernoulli.cu in Python, made of bernoulli_bit_numba.py,
which the CPU runs too.

Launches have the names and arguments of bernoulli_cupy.py. A thread draws the sixteen bytes of a Philox block, or a row
of threads sums a row of bits.
"""

from __future__ import annotations

import sys

import numpy as np
from numba import cuda

from bdiff_np.kernels.bernoulli import bernoulli_bit_numba as bit
from bdiff_np.kernels.bernoulli import bernoulli_device
from bdiff_np.kernels.bernoulli.bernoulli_codes import PER_BIT, SKIP, TINY, X_PREV
from bdiff_np.kernels.bernoulli.bernoulli_device import DeviceKernels, Law
from bdiff_np.kernels.dense import arrays_numba_cuda
from bdiff_np.kernels.dense.dense_numba_cuda import draw_below, lane_sum, random_block
from bdiff_np.kernels.shared import philox_numba as philox
from bdiff_np.kernels.shared.cuda_grid import SIDE, THREADS, WARP, blocks
from bdiff_np.rng import Key

u64 = np.uint64
WORD = 2.0**32


@cuda.jit(device=True)
def _columns(table, form, T, D, t, v, d):
    """agree, disagree, not_agree, not_disagree, gap and evidence of bit d, which shows v at t."""
    if form & PER_BIT == 0:
        at = 6 * (2 * t + v)
        return table[at], table[at + 1], table[at + 2], table[at + 3], table[at + 4], table[at + 5]
    at, pi = 6 * t, 6 * (T + 1)
    step = table[at], table[at + 1], table[at + 2], table[at + 3], table[at + 4], table[at + 5]
    v_pi, o_pi = table[pi + v * D + d], table[pi + (1 - v) * D + d]
    odds = bit.evidence(step, v_pi, o_pi, form & X_PREV != 0)
    return (
        bit.agree(step, v_pi, o_pi), bit.disagree(step, v_pi, o_pi), bit.not_agree(step, v_pi, o_pi),
        bit.not_disagree(step, v_pi, o_pi), bit.gap(step, v_pi, o_pi), odds if v != 0 else -odds,
    )  # fmt: skip


@cuda.jit(device=True)
def _shown_logit(form, own, logit, v):
    """The logit of "the bit is v", evidence included."""
    z = logit + own if form & SKIP != 0 else logit
    return z if v != 0 else -z


@cuda.jit(device=True)
def _pi(noise, form, T, d):
    return noise[T + 1 + (d if form & PER_BIT != 0 else 0)]


@cuda.jit
def _prior(pi, per_bit, seed, stream, step, first_row, x):
    B, D = x.shape
    parts, i = (D + 15) // 16, cuda.grid(1)
    if i < B * parts:
        r, j, address = i // parts, i % parts, (seed, stream, step)
        row = first_row + u64(r)
        block = random_block(seed, stream, step, row * u64(parts) + u64(j))
        for k in range(min(16, D - 16 * j)):
            d = 16 * j + k
            x[r, d] = draw_below(address, row, d, D, philox.byte(block, k), pi[d if per_bit else 0])


@cuda.jit
def _q_sample(noise, form, T, x0, t, seed, stream, step, first_row, x_t):
    B, D = x0.shape
    parts, i = (D + 15) // 16, cuda.grid(1)
    if i < B * parts:
        r, j, address = i // parts, i % parts, (seed, stream, step)
        row, lost = first_row + u64(r), noise[t[r]]
        block = random_block(seed, stream, step, row * u64(parts) + u64(j))
        for k in range(min(16, D - 16 * j)):
            d = 16 * j + k
            threshold = bit.threshold(lost, _pi(noise, form, T, d), x0[r, d])
            x_t[r, d] = draw_below(address, row, d, D, philox.byte(block, k), threshold)


@cuda.jit
def _q_batch(noise, form, T, packed, index, rows, t, seed, stream, clock, x0, x_t):
    B, D = x0.shape
    parts, i = (D + 15) // 16, cuda.grid(1)
    if i < B * parts:
        r, j, address = i // parts, i % parts, (seed, stream, clock[0])
        block, lost = random_block(seed, stream, clock[0], u64(i)), noise[t[r]]
        shown = index[clock[1] * rows + r % rows]
        for k in range(min(16, D - 16 * j)):
            d = 16 * j + k
            clean = (packed[shown, d // 8] >> (7 - d % 8)) & 1
            x0[r, d] = clean
            threshold = bit.threshold(lost, _pi(noise, form, T, d), clean)
            x_t[r, d] = draw_below(address, r, d, D, philox.byte(block, k), threshold)


@cuda.jit
def _unpack(packed, index, x):
    B, D = x.shape
    i = cuda.grid(1)
    if i < B * D:
        r, d = i // D, i % D
        x[r, d] = (packed[index[r], d // 8] >> (7 - d % 8)) & 1


@cuda.jit
def _read(x_t, t, odds, features, x, f):
    (B, D), W, F = x_t.shape, x.shape[1], f.shape[1]
    r = cuda.blockIdx.x * SIDE + cuda.threadIdx.x // WARP
    if r < B:
        for d in range(cuda.threadIdx.x % WARP, W, WARP):
            size = x.dtype.type(1) if d < D else odds[t[r]]
            x[r, d] = size if x_t[r, d % D] != 0 else -size
        for j in range(cuda.threadIdx.x % WARP, F, WARP):
            f[r, j] = features[t[r], j]


@cuda.jit
def _kl_grad(noise, table, form, T, bce, logits, bias, x0, x_t, t, logged, clock, kl, dlogits):
    room = cuda.shared.array((SIDE, WARP), logits.dtype)
    (B, D), value = logits.shape, logged[clock[1]] != 0
    lane, side = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
    r = cuda.blockIdx.x * SIDE + side
    one, tiny, total = logits.dtype.type(1), logits.dtype.type(TINY), logits.dtype.type(0)
    if r < B:
        for d in range(lane, D, WARP):
            v, same = x_t[r, d], x0[r, d] == x_t[r, d]
            c = _columns(table, form, T, D, t[r], v, d)
            z = _shown_logit(form, c[5], logits[r, d] + bias[d], v)
            a, b = bit.sigmoids(z, one, tiny)
            if form & X_PREV != 0:
                dlogits[r, d] = bit.slope_x_prev(same, v, b, c[0], c[1])
            else:
                dlogits[r, d] = bit.slope_x0(same, x0[r, d], a, b, (c[0], c[1], c[2], c[3], c[4]), bce)
            if value:
                total += bit.value(z, a, b, same, t[r], c, form & X_PREV != 0, one)
    total = lane_sum(room, lane, side, total)
    if value and r < B and lane == 0:
        kl[r] = total


@cuda.jit(device=True)
def _flip(table, form, T, D, logit, t, v, d, one, tiny):
    """Probability that the learned step flips a bit."""
    c = _columns(table, form, T, D, t, v, d)
    a, b = bit.sigmoids(_shown_logit(form, c[5], logit, v), one, tiny)
    return b if form & X_PREV != 0 else a * c[0] + b * c[1]


@cuda.jit
def _p_flip(table, form, T, logits, x_t, t, p):
    B, D = logits.shape
    i = cuda.grid(1)
    if i < B * D:
        r, d = i // D, i % D
        p[r, d] = _flip(table, form, T, D, logits[r, d], t[r], x_t[r, d], d, p.dtype.type(1), p.dtype.type(TINY))


@cuda.jit
def _p_sample(table, form, T, logits, bias, x_t, t, held, holds, seed, stream, step, first_row, x_s):
    B, D = x_t.shape
    parts, i = (D + 15) // 16, cuda.grid(1)
    if i < B * parts:
        r, j, address = i // parts, i % parts, (seed, stream, step)
        row = first_row + u64(r)
        block = random_block(seed, stream, step, row * u64(parts) + u64(j))
        one, tiny, size = logits.dtype.type(1), logits.dtype.type(TINY), logits.dtype.type(WORD)
        for k in range(min(16, D - 16 * j)):
            d = 16 * j + k
            v = x_t[r, d]
            p = _flip(table, form, T, D, logits[r, d] + bias[d], t[r], v, d, one, tiny)
            threshold = u64(0) if holds and held[r, d] != 0 else bit.next_word(p, size)
            x_s[r, d] = v ^ (1 if draw_below(address, row, d, D, philox.byte(block, k), threshold) else 0)


# Launches
# ----------------------------------------------------------------------------------------------------------------------


def prior(law: Law, key: Key, first_row: int, x) -> None:
    _prior[_parts(*x.shape), THREADS](law.noise[law.T + 1 :], bool(law.per_bit), *_address(key, first_row), x)


def q_sample(law: Law, x0, t, key: Key, first_row: int, x_t) -> None:
    _q_sample[_parts(*x0.shape), THREADS](law.noise, law.form, law.T, x0, t, *_address(key, first_row), x_t)


def q_batch(law: Law, data, index, rows: int, t, seed: int, stream: int, clock, x0, x_t) -> None:
    _q_batch[_parts(*x0.shape), THREADS](
        law.noise, law.form, law.T, data.array, index, u64(rows), t, u64(seed), u64(stream), clock, x0, x_t
    )


def unpack(packed, index, x) -> None:
    _unpack[blocks(x.size), THREADS](packed, index, x)


def read_into(x_t, t, features, odds, x, f) -> None:
    _read[blocks(len(x_t), SIDE), THREADS](x_t, t, features[0] if odds is None else odds, features, x, f)


def kl_grad(law: Law, logits, bias, x0, x_t, t, logged, clock, kl, dlogits) -> None:
    head = law.noise, law.table, law.form, law.T, law.C.type(law.bce)
    _kl_grad[blocks(len(x0), SIDE), THREADS](*head, logits, bias, x0, x_t, t, logged, clock, kl, dlogits)


def p_flip(law: Law, logits, x_t, t, p) -> None:
    _p_flip[blocks(p.size), THREADS](law.table, law.form, law.T, logits, x_t, t, p)


def p_sample(law: Law, logits, bias, x_t, t, held, key: Key, first_row: int, x_s) -> None:
    holds, head = held is not None, (law.table, law.form, law.T)
    tail = held if holds else x_t, holds, *_address(key, first_row), x_s
    _p_sample[_parts(*x_t.shape), THREADS](*head, logits, bias, x_t, t, *tail)


def _address(key: Key, first_row: int) -> tuple:
    """Seed, stream and step of a key, and the first row."""
    return u64(key.seed), u64(key.stream), u64(key.step), u64(first_row)


def _parts(B: int, D: int) -> int:
    """Blocks with a thread for each sixteen bits of a row."""
    return blocks(B * -(-D // 16))


class Kernels(DeviceKernels):
    """The kernels for one chain and one meaning of the network's output."""

    arrays, launch = arrays_numba_cuda, sys.modules[__name__]


def read(chain, x_t, t, features, weight=None):
    return bernoulli_device.read(arrays_numba_cuda, read_into, x_t, t, features, weight)
