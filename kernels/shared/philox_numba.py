"""The random words of bdiff_np/rng.py in compiled code: Philox4x64-10 (Salmon et al. 2011), the same words as
numpy.random.Philox."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np import rng
from bdiff_np.kernels.shared.compiled_numba import njit

u64 = np.uint64
M0, M1, W0, W1 = map(u64, (rng.M0, rng.M1, rng.W0, rng.W1))


@intrinsic
def _high(typing, a, b):
    """Upper 64 bits of the product of two 64-bit words: one instruction, and faster than four vectorised 32-bit
    products."""

    def codegen(context, builder, signature, arguments):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


@njit(inline="always")
def _round(c0, c1, c2, c3, k0, k1):
    return _high(M1, c2) ^ c1 ^ k0, M1 * c2, _high(M0, c0) ^ c3 ^ k1, M0 * c0


@njit(inline="always")
def block(seed, stream, step, i):
    """Block number i of a key: four words of 64 bits."""
    # NumPy's generator counts up before it draws. A counter that starts at (block, step, 0, 0) never carries.
    c0, c1, c2, c3 = u64(i) + u64(1), u64(step), u64(0), u64(0)
    k0, k1 = u64(seed), u64(stream)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + W0, k1 + W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(2) * W0, k1 + u64(2) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(3) * W0, k1 + u64(3) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(4) * W0, k1 + u64(4) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(5) * W0, k1 + u64(5) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(6) * W0, k1 + u64(6) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(7) * W0, k1 + u64(7) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(8) * W0, k1 + u64(8) * W1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + u64(9) * W0, k1 + u64(9) * W1)
    return c0, c1, c2, c3


@njit
def word(words, k):
    """Word number k of a block, 32 bits: of each word of 64, the low half first."""
    wide = u64(words[0]) if k < 2 else u64(words[1]) if k < 4 else u64(words[2]) if k < 6 else u64(words[3])
    return np.uint32(wide >> u64(32 * (k % 2)))


@njit(error_model="numpy")
def stratified_t(word, row, rows, T):
    """The step of a row of a batch, spread over 1..T by one random word: rng.stratified_t."""
    offset = (u64(word) * u64(T)) >> u64(32)
    return np.int64(u64(1) + (u64(row) * u64(T) + offset) // u64(rows))


@njit
def fill(seed, stream, step, first, out):
    """Blocks first, first + 1, ... of a key into `out`, (n, 4) uint64: each block is four words."""
    for i in range(out.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = block(seed, stream, step, u64(first) + u64(i))
