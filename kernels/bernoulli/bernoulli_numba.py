"""The three kernels of Bernoulli diffusion in compiled code: q_sample, kl_grad, p_sample.

The same operations as kernels/bernoulli/bernoulli_numpy.py, bit by bit instead of array by array; the gradient loop has
no logarithm and vectorises. The value of the KL, with its logarithms in float64, is worked out only when it is asked
for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np import diffusion
from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import Chain
from bdiff_np.kernels.bernoulli import bernoulli_bit_numba as bit
from bdiff_np.kernels.bernoulli.bernoulli_codes import MARGIN, TINY
from bdiff_np.kernels.bernoulli.bernoulli_numpy import read
from bdiff_np.kernels.bernoulli.bernoulli_tables import tables
from bdiff_np.kernels.dense.dense_numba import FUSED
from bdiff_np.kernels.shared import philox_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.philox_numba import Noise
from bdiff_np.kernels.shared.vectors_numba import first_bit, low_bytes, whole_vectors
from bdiff_np.kernels.training import hooks_numba
from bdiff_np.rng import Key

__all__ = ["Kernels", "Law", "read"]
u64, u8 = np.uint64, np.uint8
DOWN = u64(24)  # from a word to its top byte
TOGETHER = 64  # bits of a row that are compared before ties are looked for: one in five has some


class Law(NamedTuple):
    """A chain and the meaning of the network's output, as compiled code reads them. C is the dtype of the logits."""

    lost: np.ndarray  # (T + 1,) uint64, beta_bar in units of 2**-32
    pi_words: np.ndarray  # (1,) or (D,) uint64, pi in the same units
    # (2 T + 2, 6) C, columns for a bit that shows v at t in row 2 t + v; empty if pi is a law per bit
    table: np.ndarray
    # (T + 1, 6) C: alpha_bar before and after t, what each leaves to 1, and what a step keeps and redraws
    steps: np.ndarray
    pi: np.ndarray  # (2, 1) or (2, D) C: probabilities of 0 and of 1
    bce: float  # C, weight of the cross entropy of x_0 in the gradient
    x_prev: bool  # logits are of x_{t-1}
    skip: bool  # x_t's own evidence is added to the logits


def law(chain: Chain, predict: str, skip: bool, bce_weight: float, dtype) -> Law:
    """Tables of a chain, as compiled code reads them."""
    host, C = tables(chain, predict), np.dtype(dtype)
    arrays = host.lost, host.pi_words, host.table.astype(C), host.steps.astype(C), host.pi.astype(C)
    return Law(*arrays, C.type(bce_weight / chain.T), predict == "x_prev", skip)


class Kernels(diffusion.Kernels):
    """The kernels for one chain and one meaning of the network's output; arguments, shapes and results as in
    bernoulli_numpy.Kernels."""

    work = 7  # look_up's columns, and p

    def __init__(self, chain: Chain, predict: str = "x0", skip: bool = True, bce_weight: float = 0.0, dtype=np.float32):
        self.chain, self.predict, self.skip, self.dtype = chain, predict, skip, np.dtype(dtype)
        self.law = law(chain, predict, skip, bce_weight, dtype)

    def q_sample(self, x0: np.ndarray, t: np.ndarray, key: Key, first_row: int = 0) -> np.ndarray:
        x_t = np.empty(x0.shape, np.uint8)
        noise = self._noise(key, len(x0), x0.shape[1], first_row)
        q_sample(self.law, np.asarray(t, np.int64), noise, *_bits(x0), x_t)
        return x_t

    def kl_grad(self, logits, x0, x_t, t, value: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
        kl, dlogits = np.empty(len(x0) if value else 0), np.empty(logits.shape, self.dtype)
        kl_grad(
            self.law,
            np.asarray(t, np.int64),
            np.ascontiguousarray(logits),
            *_bits(x0, x_t),
            self._work(x_t),
            dlogits,
            kl,
        )
        return kl if value else None, dlogits

    def p_flip(self, logits, x_t, t) -> np.ndarray:
        (x_t,), p = _bits(x_t), np.empty(logits.shape, self.dtype)
        p_flip(self.law, np.asarray(t, np.int64), np.ascontiguousarray(logits), x_t, self._work(x_t), p.reshape(-1))
        return p

    def p_sample(self, logits, x_t, t, key: Key, first_row: int = 0) -> np.ndarray:
        x_s, noise = np.array(x_t, np.uint8), self._noise(key, len(x_t), x_t.shape[1], first_row)
        p_sample(self.law, np.asarray(t, np.int64), np.ascontiguousarray(logits), noise, self._work(x_s), x_s)
        return x_s

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0) -> np.ndarray:
        x = np.empty((rows, D), np.uint8)
        prior(self.law, self._noise(key, rows, D, first_row), x)
        return x

    def blocks(self, D: int) -> int:
        """A byte for each element."""
        return -(-D // 16)

    def limits(self, t: np.ndarray, D: int) -> np.ndarray:
        """(n, 2, D) uint32 for t (n,): a word above it flips no bit that shows 0, or 1."""
        if self.law.x_prev:  # nothing bounds these
            return np.full((len(t), 2, D), 2**32 - 1, np.uint32)
        both = np.tile(np.repeat(np.arange(2, dtype=np.uint8)[:, None], D, axis=1), (len(t), 1))
        columns = np.empty((6, both.size), self.dtype)
        look_up(self.law, np.repeat(t, 2), both, columns, True)
        return (
            np.minimum(columns[1].astype(np.float64) * (1 + MARGIN) * 2.0**32, 2.0**32 - 1)
            .astype(np.uint32)
            .reshape(len(t), 2, D)
        )

    def _noise(self, key: Key, rows: int, D: int, first_row: int) -> Noise:
        return philox_numba.noise(key, rows, self.blocks(D), first_row)

    def _work(self, x_t: np.ndarray) -> np.ndarray:
        return np.empty(self.work * x_t.size, self.dtype)


def _bits(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """As the compiled functions want them."""
    return tuple(np.ascontiguousarray(x, np.uint8) for x in arrays)


# What the fused paths are filled with (hooks_numba.py)
# -------------------------------------------------------------------------------------


@njit
def read_row(law, t, x_t, out):
    """Bits as -1 and +1."""
    one = out.dtype.type(1)
    for d in range(x_t.size):
        out[d] = one if x_t[d] != 0 else -one


@njit(error_model="numpy")
def kl_grad(law, t, logits, x0, x_t, work, dlogits, kl):
    columns = work[: 6 * x_t.size].reshape(6, x_t.size)
    look_up(law, t, x_t, columns, bool(1))
    gradient(law, logits.reshape(-1), (x0.reshape(-1), x_t.reshape(-1)), columns, dlogits.reshape(-1))
    if kl.size > 0:
        values(law, t, logits, (x0, x_t), columns, kl)


@njit(error_model="numpy", inline="always")
def may_change(law, limits, noise, x, may):
    """Whether a bit of a row may flip: p = a agree + b disagree with a + b = 1 is never above `disagree`, whatever the
    network says. Most rows show it by sixteen bytes at a time, none of which is as low as the highest limit's."""
    B, D = x.shape
    if_0, if_1 = limits[0], limits[1]
    most = np.uint32(0)
    for d in range(D):
        most = max(most, if_0[d], if_1[d])
    top, blocks, bytes = u64(most) >> DOWN, noise.words.shape[1] // 4, top_bytes(noise)
    for r in range(B):
        may[r] = 0
        for j in range(blocks):
            low = low_bytes(noise.words[r, 4 * j :].ctypes.data, top)
            if 16 * (j + 1) > D:
                low &= (u64(1) << u64(D - 16 * j)) - u64(1)
            while low != 0 and may[r] == 0:
                d = 16 * j + first_bit(low)
                low &= low - u64(1)
                limit = u64(if_1[d] if x[r, d] != 0 else if_0[d])
                if u64(bytes[r, d]) <= limit >> DOWN:
                    may[r] = u64(bytes[r, d]) < limit >> DOWN or (
                        philox_numba.tied_draw(noise, r, d, D, bytes[r, d]) <= limit
                    )


@njit(inline="always")
def top_bytes(noise):
    """What decides most draws, (B, >= D) uint8."""
    return noise.words.reshape(-1).view(np.uint8).reshape(noise.words.shape[0], -1)


@njit(error_model="numpy", inline="always")
def p_flip(law, t, logits, x_t, work, p):
    """p (B D,): probabilities that the learned step flips bits x_t (B, D)."""
    columns = work[: 6 * x_t.size].reshape(6, x_t.size)
    look_up(law, t, x_t, columns, bool(0))
    flips(law, logits.reshape(-1), x_t.reshape(-1), columns, p)


@njit(error_model="numpy", inline="always")
def p_sample(law, t, logits, noise, work, x_t):
    (B, D), bytes = x_t.shape, top_bytes(noise)
    p = work[6 * x_t.size : 7 * x_t.size]
    p_flip(law, t, logits, x_t, work, p)
    size = p.dtype.type(bernoulli.WORD)
    for r in range(B):
        now = p[r * D : (r + 1) * D]
        if _flip(bytes[r], now, x_t[r]):
            for d in range(D):
                if bytes[r, d] == np.int32(now[d] * now.dtype.type(256)):
                    word = philox_numba.tied_draw(noise, r, d, D, bytes[r, d])
                    x_t[r, d] ^= np.uint8(word < bit.next_word(now[d], size))


@njit
def _flip(bytes, p, x_t):
    """Flips the bits whose byte lies below 256 p, rounded down. Returns whether a byte is that: its word decides."""
    ties = np.uint8(0)
    for d in range(x_t.size):
        top = np.int32(p[d] * p.dtype.type(256))
        x_t[d] ^= np.uint8(np.int32(bytes[d]) < top)
        ties |= np.uint8(np.int32(bytes[d]) == top)
    return ties != 0


# Over rows
# ----------------------------------------------------------------------------------------------------------------------
#
# Loops over bits take flat arrays and no more than eight of them that could overlap: then LLVM proves that they may run
# in vectors.


@njit(error_model="numpy")
def q_sample(law, t, noise, x0, x_t):
    """x_t (B, D) from x0 (B, D) and t (B,)."""
    (B, D), bytes = x0.shape, top_bytes(noise)
    for r in range(B):
        lost = law.lost[t[r]]
        if law.pi_words.size == 1:
            thresholds = bit.threshold(lost, law.pi_words[0], u8(0)), bit.threshold(lost, law.pi_words[0], u8(1))
            for lo in range(0, D, TOGETHER):
                hi = min(lo + TOGETHER, D)
                if _below(bytes[r, lo:hi], x0[r, lo:hi], x_t[r, lo:hi], thresholds):
                    _below_tied(noise, (r, lo, hi, D), bytes[r], x0[r], x_t[r], thresholds)
        else:
            for d in range(D):
                threshold = bit.threshold(lost, law.pi_words[d], x0[r, d])
                x_t[r, d] = _is_below(noise, r, d, D, bytes[r, d], threshold)


@njit(error_model="numpy")
def prior(law, noise, x):
    """x (B, D) of the stationary law."""
    (B, D), bytes = x.shape, top_bytes(noise)
    for r in range(B):
        for d in range(D):
            x[r, d] = _is_below(noise, r, d, D, bytes[r, d], law.pi_words[d % law.pi_words.size])


@njit(inline="always")
def _is_below(noise, r, d, D, byte, threshold):
    """Whether the word with this top byte is below a threshold of 0 to 2**32."""
    top = threshold >> DOWN
    if u64(byte) != top:
        return np.uint8(u64(byte) < top)
    return np.uint8(philox_numba.tied_draw(noise, r, d, D, byte) < threshold)


@njit
def _below(bytes, x0, x_t, thresholds):
    """`_is_below` for the first threshold (x0 = 0) or the second, in bytes alone: the last word below a threshold has a
    top byte, unless there is none. Returns whether a byte is that one, which decides nothing."""
    first, second = thresholds
    one = np.uint8(1)
    can_0, can_1 = one if first > u64(0) else np.uint8(0), one if second > u64(0) else np.uint8(0)
    top_0, top_1 = np.uint8((first - u64(1)) >> DOWN), np.uint8((second - u64(1)) >> DOWN)
    ties = np.uint8(0)
    for d in range(x0.size):
        top, can = top_1 if x0[d] != 0 else top_0, can_1 if x0[d] != 0 else can_0
        x_t[d] = can if bytes[d] < top else np.uint8(0)
        ties |= can if bytes[d] == top else np.uint8(0)
    return ties != 0


@njit
def _below_tied(noise, where, bytes, x0, x_t, thresholds):
    """What `_below` left open, of elements lo .. hi - 1 of row r."""
    r, lo, hi, D = where
    for d in range(lo, hi):
        threshold = thresholds[1] if x0[d] != 0 else thresholds[0]
        if threshold > u64(0) and u64(bytes[d]) == (threshold - u64(1)) >> DOWN:
            x_t[d] = np.uint8(philox_numba.tied_draw(noise, r, d, D, bytes[d]) < threshold)


@njit(error_model="numpy")
def look_up(law, t, x_t, columns, all_columns):
    """The law's columns for each bit, (6, B D) C, of x_t (B, D) at t (B,): from the table, or by the formulas of
    bernoulli.q_flip and evidence. all_columns : or those alone that a step back needs, agree, disagree and evidence;
    not a literal, or Numba compiles this once for each"""
    B, D = x_t.shape
    flat, r = x_t.reshape(-1), 0
    while r < B:
        last = r + 1
        if law.table.shape[0] == 0:
            _work_out(law, law.steps[t[r]], x_t[r], columns[:, r * D : last * D])
        else:
            while last < B and t[last] == t[r]:  # rows of one t in one go
                last += 1
            lo, hi = r * D, last * D
            zero, one = law.table[2 * t[r]], law.table[2 * t[r] + 1]
            for c in range(6):
                if all_columns or c < 2 or c == 5:
                    _choose(flat[lo:hi], zero[c], one[c], columns[c, lo:hi])
        r = last


@njit
def _choose(x_t, zero, one, column):
    whole_vectors()
    for d in range(x_t.size):
        column[d] = one if x_t[d] != 0 else zero


@njit(fastmath=FUSED, error_model="numpy")
def _work_out(law, step, x_t, columns):
    """One row of look_up by the formulas."""
    step = step[0], step[1], step[2], step[3], step[4], step[5]
    agree, disagree, not_agree, not_disagree = columns[0], columns[1], columns[2], columns[3]
    pi_0, pi_1 = law.pi[0], law.pi[1]
    pi_v, pi_o = columns[5], columns[4]  # for a while
    for d in range(x_t.size):
        pi_v[d] = pi_1[d] if x_t[d] != 0 else pi_0[d]
        pi_o[d] = pi_0[d] if x_t[d] != 0 else pi_1[d]
    for d in range(x_t.size):
        agree[d] = bit.agree(step, pi_v[d], pi_o[d])
        not_agree[d] = bit.not_agree(step, pi_v[d], pi_o[d])
    for d in range(x_t.size):
        disagree[d] = bit.disagree(step, pi_v[d], pi_o[d])
        not_disagree[d] = bit.not_disagree(step, pi_v[d], pi_o[d])
    for d in range(x_t.size):
        v, o = pi_v[d], pi_o[d]
        columns[4, d] = bit.gap(step, v, o)
        odds = bit.evidence(step, v, o, law.x_prev)
        columns[5, d] = odds if x_t[d] != 0 else -odds


@njit(fastmath=FUSED, error_model="numpy")
def gradient(law, logits, bits, columns, dlogits):
    """kl_grad's gradient, for flat arrays of bits: bits are (x0, x_t), columns (6, n). Derivation, sections 6 and 7."""
    whole_vectors()
    x0, x_t = bits
    agree, disagree, not_agree, not_disagree, gap, own = (
        columns[0],
        columns[1],
        columns[2],
        columns[3],
        columns[4],
        columns[5],
    )
    zero, one = dlogits.dtype.type(0), dlogits.dtype.type(1)
    add, bce, tiny = one if law.skip else zero, law.bce, dlogits.dtype.type(TINY)
    if law.x_prev:
        for d in range(logits.size):
            z = logits[d] + add * own[d]
            _, flip = bit.sigmoids(z if x_t[d] != 0 else -z, one, tiny)
            dlogits[d] = bit.slope_x_prev(x0[d] == x_t[d], x_t[d], flip, agree[d], disagree[d])
        return
    for d in range(logits.size):
        z = logits[d] + add * own[d]
        a, b = bit.sigmoids(z if x_t[d] != 0 else -z, one, tiny)  # P(x_0 = x_t | x_t), and what it leaves
        law_of_bit = agree[d], disagree[d], not_agree[d], not_disagree[d], gap[d]
        dlogits[d] = bit.slope_x0(x0[d] == x_t[d], x0[d], a, b, law_of_bit, bce)


@njit(fastmath=FUSED, error_model="numpy")
def flips(law, logits, x_t, columns, p):
    """p_flip, for flat arrays."""
    whole_vectors()
    agree, disagree, own = columns[0], columns[1], columns[5]
    zero, one, tiny = p.dtype.type(0), p.dtype.type(1), p.dtype.type(TINY)
    add = one if law.skip else zero
    x_prev = law.x_prev
    for d in range(logits.size):
        z = logits[d] + add * own[d]
        a, b = bit.sigmoids(z if x_t[d] != 0 else -z, one, tiny)
        p[d] = b if x_prev else a * agree[d] + b * disagree[d]


@njit(error_model="numpy")
def values(law, t, logits, bits, columns, kl):
    """kl_grad's value, (B,) nats, in float64, for arrays (B, D)."""
    x0, x_t = bits
    B, D = x0.shape
    for r in range(B):
        kl[r] = 0.0
        for d in range(D):
            at = r * D + d
            z = np.float64(logits[r, d]) + (np.float64(columns[5, at]) if law.skip else 0.0)
            z = z if x_t[r, d] != 0 else -z
            a, b = bit.sigmoids(z, 1.0, 0.0)
            agree, disagree, gap = np.float64(columns[0, at]), np.float64(columns[1, at]), np.float64(columns[4, at])
            not_agree, not_disagree = np.float64(columns[2, at]), np.float64(columns[3, at])
            wide = agree, disagree, not_agree, not_disagree, gap, 0.0
            kl[r] += bit.value(z, a, b, x0[r, d] == x_t[r, d], t[r], wide, law.x_prev, 1.0)


hooks_numba.fill(Law, read_row=read_row, q_sample=q_sample, kl_grad=kl_grad, may_change=may_change, p_sample=p_sample)
