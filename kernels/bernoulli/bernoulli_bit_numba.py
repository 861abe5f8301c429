"""Bernoulli diffusion of one bit in compiled code: what the loops of bernoulli_numba.py and the kernels of
bernoulli_numba_cuda.py are made of.

Numbers in, numbers out, so that one function serves a vectorised loop, a GPU and its simulator. Formulas: derivation,
sections 3 to 7 and 14.
"""

from __future__ import annotations

import math

import numpy as np

from bdiff_np.kernels.bernoulli import bernoulli_codes as codes
from bdiff_np.kernels.dense.dense_numba import FUSED
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.float32_numba import exp, log

u64, f32 = np.uint64, np.float32
WORD_BITS = u64(32)
# Numbers to compare with, in float32: a float64 in a GPU's float32 code would draw in instructions of which it has few.
LOW, NEAR_LOW, NEAR_HIGH, LEAST = f32(codes.LOW), f32(codes.NEAR_LOW), f32(codes.NEAR_HIGH), f32(codes.LEAST)


@njit
def threshold(lost, pi, x0):
    """The word below which x_t is 1, in units of 2**-32: 0 to 2**32. lost : beta_bar_t, pi : in the same units,
    uint64"""
    return ((lost * pi) >> WORD_BITS) + ((u64(1) << WORD_BITS) - lost if x0 != 0 else u64(0))


@njit
def next_word(p, size):
    """The threshold of a probability p: a word says yes if it lies below p size, which is exact, and it lies below that
    if it lies below the next whole number. size : 2**32 in p's type"""
    return u64(math.ceil(p * size))


# The flip law of a bit whose value has probability v by the stationary law, the other one o; step : alpha_bar before
# and after t, what each leaves to 1, what a step keeps and redraws. Derivation, section 3; defined by bernoulli.q_flip.


@njit(fastmath=FUSED, error_model="numpy")
def agree(step, v, o):
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    return bb_s * o * redraw * v / (ab_t + bb_t * v)


@njit(fastmath=FUSED, error_model="numpy")
def disagree(step, v, o):
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    return (ab_s + bb_s * o) * redraw / bb_t


@njit(fastmath=FUSED, error_model="numpy")
def not_agree(step, v, o):
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    return (ab_s + bb_s * v) * (keep + redraw * v) / (ab_t + bb_t * v)


@njit(fastmath=FUSED, error_model="numpy")
def not_disagree(step, v, o):
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    return bb_s * (keep + redraw * v) / bb_t


@njit(fastmath=FUSED, error_model="numpy")
def gap(step, v, o):
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    return redraw * (ab_s * v + ab_t * o) / (bb_t * (ab_t + bb_t * v))


@njit(fastmath=FUSED, error_model="numpy")
def evidence(step, v, o, x_prev):
    """Log odds that the bit shows its value because x_0, or x_{t-1}, has it."""
    ab_s, ab_t, bb_s, bb_t, keep, redraw = step
    signal, lost = (keep, redraw) if x_prev else (ab_t, bb_t)
    return log((signal + lost * v) / (lost * o))


@njit(fastmath=FUSED, error_model="numpy")
def sigmoids(z, one, tiny):
    """sigmoid(z) and sigmoid(-z), each to its own full relative precision; the small one not below `tiny`."""
    e = max(exp(-abs(z)), tiny)
    large = one / (one + e)
    small = e * large
    return large if z >= 0 else small, small if z >= 0 else large


@njit(fastmath=FUSED, error_model="numpy")
def slope_x0(same, x0, a, b, columns, bce):
    """d KL / d logit with predict x0, plus the auxiliary cross entropy's. a, b : probability that x_0 is what x_t
    shows, and what it leaves to 1"""
    agree, disagree, not_agree, not_disagree, gap = columns
    # at t = 1 this is a b / (b a)
    weight = gap * gap * (a * b) / ((a * agree + b * disagree) * (a * not_agree + b * not_disagree))
    missing = b if same else a  # probability that the net does not give to the true x_0
    return (weight + bce) * (-missing if x0 != 0 else missing)


@njit(fastmath=FUSED, error_model="numpy")
def slope_x_prev(same, v, flip, agree, disagree):
    """d KL / d logit with predict x_prev. flip : the learned step's probability of a flip"""
    off = (agree if same else disagree) - flip
    return off if v != 0 else -off


@njit(error_model="numpy")
def softplus(z, one):
    """log(1 + exp(z)) without overflow."""
    return max(z, one - one) + math.log1p(math.exp(-abs(z)))


@njit(error_model="numpy")
def phi(y, log_ratio, one):
    """y - log(1 + y) >= 0. Two terms of nearly one size would cancel for small y: there, with s = y / (2 + y), log(1 +
    y) is 2 atanh(s), and what is left is y s - 2 s^3 (1/3 + s^2/5 + ...), whose terms do not. log_ratio : log(1 + y),
    wanted where y itself has lost its digits, below LOW"""
    if y < LOW:
        return y - log_ratio
    if y < NEAR_LOW or y > NEAR_HIGH:
        return y - math.log1p(y)
    s = y / (one + one + y)
    q = s * s
    total = one / f32(23)
    for k in range(9, -1, -1):
        total = total * q + one / f32(2 * k + 3)
    return s * y - (s + s) * q * total


@njit(error_model="numpy")
def log_of_ratio(p, q, z, one):
    """log(p / q). Nothing holds logits of x_{t-1} back: there, p = sigmoid(-z) has more range as a logarithm."""
    return math.log(p / q) if p > LEAST else -softplus(z, one) - math.log(q)


@njit(error_model="numpy")
def value(z, a, b, same, t, columns, x_prev, one):
    """KL(q || p) of the reverse step of one bit, in nats. z : logit of "the bit is what it shows". a, b : sigmoids of
    z. same : whether x_0 is what x_t shows. columns : agree, disagree, not_agree, not_disagree, gap and one more"""
    agree, disagree, not_agree, not_disagree, gap, _ = columns
    if t == 1:
        return softplus(-z if same else z, one)
    q, not_q = (agree, not_agree) if same else (disagree, not_disagree)
    if x_prev:
        p, not_p = b, a
        off = p - q
    else:
        p, not_p = a * agree + b * disagree, a * not_agree + b * not_disagree
        off = b * gap if same else -a * gap
    y, not_y = off / q, -off / not_q
    ratio = log_of_ratio(p, q, z, one) if y < LOW else one
    not_ratio = log_of_ratio(not_p, not_q, -z, one) if not_y < LOW else one
    return q * phi(y, ratio, one) + not_q * phi(not_y, not_ratio, one)
